// Compression of others, for test_deflate_interop.py.
// `node deflate.js` prints the port of a server, on which /ws?{options} and /faye?{options} are
// echoes, and then does what each line of its standard input asks for, as a client: JSON with
// kind, url and options in, JSON with what happened out. It ends with its standard input.
'use strict';

const http = require('http');
const readline = require('readline');
const FayeWebSocket = require('faye-websocket');
const permessageDeflate = require('permessage-deflate');
const WebSocket = require('ws');

// ---------------------------------------------------------------- the messages

function json(size) {
  const rows = [];
  for (let id = 0, length = 0; length < size; id++) {
    rows.push({ id, name: 'name ' + (id * 7919) % 1000, price: (id * 104729) % 10007 / 100 });
    length += JSON.stringify(rows[id]).length + 1;
  }
  return JSON.stringify(rows);
}

function binary(size) {
  const data = Buffer.alloc(size);
  for (let index = 0, seed = 1; index < size; index++) {
    seed = (seed * 1103515245 + 12345) & 0x7fffffff;
    data[index] = index & 0x8000 ? seed >> 16 : 7 * index;  // noise and order in turns
  }
  return data;
}

const JSON_64K = json(65536);
const BINARY_1M = binary(1 << 20);
const MESSAGES = ['', 'hello', JSON_64K, BINARY_1M, 'grüße 🎉', Buffer.alloc(0), JSON_64K, 'hello'];

function differs(got, sent) {
  const same = typeof sent === 'string'
    ? got === sent
    : typeof got !== 'string' && Buffer.compare(Buffer.from(got), sent) === 0;
  return same ? [] : [`sent ${sent.length}, got ${got && got.length}`];
}

// ---------------------------------------------------------------- clients

function connectWs({ url, options }, finish) {
  const socket = new WebSocket(url, { perMessageDeflate: { threshold: 0, ...options } });
  const result = { faults: [], pongs: 0 };
  const expected = [];
  socket.on('error', (error) => result.faults.push(String(error)));
  socket.on('pong', () => result.pongs++);
  socket.on('open', () => {
    result.extensions = socket.extensions;
    MESSAGES.forEach((message, index) => {
      expected.push(message);
      socket.send(message, { compress: index % 3 !== 1 });
      socket.ping();
    });
    // Fragments, compressed, with control frames between them.
    const third = Math.ceil(JSON_64K.length / 3);
    expected.push(JSON_64K);
    for (let index = 0; index < 3; index++) {
      socket.send(JSON_64K.slice(index * third, (index + 1) * third), { fin: index === 2 });
      socket.ping('between');
    }
  });
  socket.on('message', (data, isBinary) => {
    result.faults.push(...differs(isBinary ? data : data.toString(), expected.shift()));
    if (!expected.length) socket.close(1000);
  });
  socket.on('close', (code) => finish({ ...result, code, missing: expected.length }));
}

function connectFaye({ url, options }, finish) {
  const extensions = [permessageDeflate.configure(options)];
  const socket = new FayeWebSocket.Client(url, [], { extensions });
  const result = { faults: [], pongs: 0 };
  const expected = [...MESSAGES];
  socket.on('error', (event) => result.faults.push(event.message));
  socket.on('open', () => {
    result.extensions = socket.headers['sec-websocket-extensions'];
    for (const message of MESSAGES) {
      socket.send(message);
      socket.ping('between', () => result.pongs++);
    }
  });
  socket.on('message', (event) => {
    result.faults.push(...differs(event.data, expected.shift()));
    if (!expected.length) socket.close(1000);
  });
  socket.on('close', (event) => finish({ ...result, code: event.code, missing: expected.length }));
}

// ---------------------------------------------------------------- servers

function serveWs(request, socket, head, options) {
  const perMessageDeflate = { threshold: 64, ...options };
  const server = new WebSocket.WebSocketServer({ noServer: true, perMessageDeflate });
  server.handleUpgrade(request, socket, head, (ws) => {
    ws.on('error', () => {});
    ws.on('message', (data, isBinary) => {
      if (data.toString() !== 'fragments') return ws.send(data, { binary: isBinary });
      ['one ', 'one '.repeat(5000), 'two'].forEach((piece, index) => {
        ws.send(piece, { fin: index === 2, compress: true });
        ws.ping('between');
      });
    });
  });
}

function serveFaye(request, socket, head, options) {
  const extensions = [permessageDeflate.configure(options)];
  const ws = new FayeWebSocket(request, socket, head, [], { extensions });
  ws.on('message', (event) => {
    ws.send(event.data);
    ws.ping('between');
  });
}

const server = http.createServer((request, response) => response.writeHead(404).end());
server.on('upgrade', (request, socket, head) => {
  const [path, query] = request.url.split('?');
  const serve = path === '/ws' ? serveWs : serveFaye;
  serve(request, socket, head, JSON.parse(decodeURIComponent(query)));
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));

const lines = readline.createInterface({ input: process.stdin });
lines.on('line', (line) => {
  const job = JSON.parse(line);
  const connect = job.kind === 'ws' ? connectWs : connectFaye;
  connect(job, (result) => console.log(JSON.stringify(result)));
});
lines.on('close', () => process.exit());
