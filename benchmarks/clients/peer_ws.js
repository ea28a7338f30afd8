// The client of ws: node peer_ws.js PORT WINDOW SIZE SECONDS, measured as meter.py does.
'use strict';
const { createRequire } = require('module');
const path = require('path');
const peers = createRequire(path.join(__dirname, '..', '.peers', 'index.js'));
const WebSocket = peers('ws');

const [port, window, size, seconds] = process.argv.slice(2).map(Number);
const message = 'abcdefghijklmnopqrstuvwxyz'.repeat(size).slice(0, size);
const ws = new WebSocket(`ws://127.0.0.1:${port}/echo`, { perMessageDeflate: false });
let count = 0;
let started = null;
let until = performance.now() + 300;

ws.on('open', () => { for (let i = 0; i < window; i++) ws.send(message); });
ws.on('message', (data) => {
  data.toString();
  count++;
  const now = count % 64 ? 0 : performance.now();
  if (now > until && !started) {
    started = { count, now, cpu: process.cpuUsage() };
    until = now + seconds * 1000;
  } else if (now > until) {
    const { user, system } = process.cpuUsage(started.cpu);
    console.log(JSON.stringify({
      messages: count - started.count,
      seconds: (now - started.now) / 1000,
      cpu_seconds: (user + system) / 1e6,
    }));
    ws.terminate();
    return;
  }
  ws.send(message);
});
