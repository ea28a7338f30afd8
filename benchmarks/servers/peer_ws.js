// The echo of ws, and on /broadcast everybody hears everybody.
'use strict';
const { createRequire } = require('module');
const path = require('path');
const peers = createRequire(path.join(__dirname, '..', '.peers', 'index.js'));
const { WebSocketServer } = peers('ws');

const options = { port: Number(process.argv[2]), host: '127.0.0.1', backlog: 2048 };
const everybody = new Set();
const perMessageDeflate = process.argv[3] === 'deflate' && { threshold: 0 };
new WebSocketServer({ ...options, perMessageDeflate }).on('connection', (ws, request) => {
  if (request.url !== '/broadcast') {
    ws.on('message', (data, isBinary) => ws.send(data, { binary: isBinary }));
    return;
  }
  everybody.add(ws);
  ws.on('message', (data, isBinary) => {
    for (const one of everybody) one.send(data, { binary: isBinary });
  });
  ws.on('close', () => everybody.delete(ws));
});
