// faye-websocket, the library that faye_wsgi follows: its echo, /broadcast and /feed.
'use strict';
const { createRequire } = require('module');
const path = require('path');
const peers = createRequire(path.join(__dirname, '..', '.peers', 'index.js'));
const WebSocket = peers('faye-websocket');
const { EventSource } = WebSocket;
const http = require('http');

const everybody = new Set();
const EVENT = 'x'.repeat(100);

// As many events as the socket takes, then the next when it has room.
function feed(es) {
  const stream = es._stream;
  const more = () => {
    while (es.readyState < 2 && stream.writableLength < 65536) es.send(EVENT);
    if (es.readyState < 2) setImmediate(more);
  };
  setImmediate(more);
}

const server = http.createServer((request, response) => feed(new EventSource(request, response)));
server.on('upgrade', (request, socket, body) => {
  const ws = new WebSocket(request, socket, body);
  if (request.url !== '/broadcast') {
    ws.on('message', (event) => ws.send(event.data));
    return;
  }
  everybody.add(ws);
  ws.on('message', (event) => { for (const one of everybody) one.send(event.data); });
  ws.on('close', () => everybody.delete(ws));
});
server.listen({ port: Number(process.argv[2]), host: '127.0.0.1', backlog: 2048 });
