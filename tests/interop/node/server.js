// A WebSocket server for the tests: `node server.js ws` or `node server.js faye-websocket`.
// It prints its port; what it does is in the path (see test_client_interop.py).
'use strict';

const http = require('http');
const PROTOCOLS = ['irc', 'amqp'];

function serveWs(server) {
  const { WebSocketServer } = require('ws');
  const wss = new WebSocketServer({
    server,
    perMessageDeflate: true,
    handleProtocols: (offered) => PROTOCOLS.find((name) => offered.has(name)) || false,
  });
  wss.on('connection', (socket, request) => {
    socket.on('error', () => {});
    const path = request.url;
    if (path === '/echo') {
      socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
    } else if (path === '/close') {
      socket.close(4001, 'because');
    } else if (path === '/ping') {
      socket.on('pong', (data) => socket.send('pong ' + data));
      socket.ping('hello');
    } else if (path === '/fragments') {
      socket.send('one ', { fin: false });
      socket.send('two ', { fin: false });
      socket.send('three', { fin: true });
    } else if (path === '/terminate') {
      socket.terminate();
    }
  });
}

function serveFaye(server) {
  const WebSocket = require('faye-websocket');
  server.on('upgrade', (request, socket, body) => {
    const ws = new WebSocket(request, socket, body, PROTOCOLS);
    const path = request.url;
    if (path === '/echo') {
      ws.on('message', (event) => ws.send(event.data));
    } else if (path === '/close') {
      ws.on('open', () => ws.close(4001, 'because'));
    } else if (path === '/ping') {
      ws.ping('hello', () => ws.send('pong hello'));
    } else if (path === '/terminate') {
      ws.on('open', () => socket.destroy());
    }
  });
}

const server = http.createServer((request, response) => {
  response.writeHead(404);
  response.end('no page\n');
});
(process.argv[2] === 'ws' ? serveWs : serveFaye)(server);
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
// It ends with its standard input, so that none is left when a test run is killed.
process.stdin.on('end', () => process.exit()).resume();
