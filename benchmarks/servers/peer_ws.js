// The echo of ws.
'use strict';
const { createRequire } = require('module');
const path = require('path');
const peers = createRequire(path.join(__dirname, '..', '.peers', 'index.js'));
const { WebSocketServer } = peers('ws');

const options = { port: Number(process.argv[2]), host: '127.0.0.1', backlog: 2048 };
new WebSocketServer({ ...options, perMessageDeflate: false }).on('connection', (ws) => {
  ws.on('message', (data, isBinary) => ws.send(data, { binary: isBinary }));
});
