// The echo of faye-websocket, the library that faye_wsgi follows.
'use strict';
const { createRequire } = require('module');
const path = require('path');
const peers = createRequire(path.join(__dirname, '..', '.peers', 'index.js'));
const WebSocket = peers('faye-websocket');
const http = require('http');

const server = http.createServer();
server.on('upgrade', (request, socket, body) => {
  const ws = new WebSocket(request, socket, body);
  ws.on('message', (event) => ws.send(event.data));
});
server.listen({ port: Number(process.argv[2]), host: '127.0.0.1', backlog: 2048 });
