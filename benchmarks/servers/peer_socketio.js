// Socket.IO with its Redis adapter in two processes: a room, to which everybody's messages go.
'use strict';
const cluster = require('cluster');
const { createRequire } = require('module');
const path = require('path');

async function serve(port) {
  const peers = createRequire(path.join(__dirname, '..', '.peers', 'index.js'));
  const { createAdapter } = peers('@socket.io/redis-adapter');
  const { createClient } = peers('redis');
  const { Server } = peers('socket.io');
  const publisher = createClient({ socket: { path: new URL(process.env.CHANNELS_URL).pathname } });
  const subscriber = publisher.duplicate();
  await Promise.all([publisher.connect(), subscriber.connect()]);

  const io = new Server({
    adapter: createAdapter(publisher, subscriber),
    transports: ['websocket'], // long polling would need sticky sessions
  });
  io.on('connection', (socket) => {
    socket.join('all');
    socket.on('all', (text) => io.to('all').emit('all', text));
  });
  io.listen(port);
}

if (cluster.isPrimary) {
  cluster.fork();
  cluster.fork();
} else {
  serve(Number(process.argv[2]));
}
