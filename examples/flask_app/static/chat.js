/** The page of the chat: joins the connection, the rooms and what is on the screen. */

import { Connection } from './connection.js';
import { Room, key } from './room.js';
import {
  avatar,
  dateAndTime,
  day,
  element,
  hue,
  list,
  midnight,
  paintAvatar,
  plural,
  time,
  withLinks,
} from './text.js';

const HOME = 'general';
const CHANNEL_NAME = /^[a-z0-9][a-z0-9-]{0,23}$/;
const SAME_BREATH = 5 * 60_000; // messages this close together stand under one name
const TYPING_EVERY = 2_500;
const TYPING_LASTS = 5_000;
const ECHO_TIMEOUT = 15_000; // a message that has not come back by then: the line is dead
const BANNER_AFTER = 1_200; // a quick reconnection should not flash

const $ = (id) => document.getElementById(id);
const narrow = matchMedia('(max-width: 760px)');
const hasMouse = matchMedia('(pointer: fine)');

/* ---- What is remembered. This window: who I am. This browser: what to suggest next time. ---- */

const memory = {
  get: (store, name) => {
    try {
      return JSON.parse(store.getItem(name));
    } catch {
      return null;
    }
  },
  set: (store, name, value) => {
    try {
      store.setItem(name, JSON.stringify(value));
    } catch {
      /* full, or forbidden */
    }
  },
};

const randomId = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) =>
    byte.toString(16).padStart(2, '0'),
  ).join('');

const me = {
  id: null, // the server's, from our key
  name: memory.get(sessionStorage, 'name'),
  key: memory.get(sessionStorage, 'key') ?? randomId(),
};
memory.set(sessionStorage, 'key', me.key);

const rooms = new Map();
const typing = new Map(); // id → { name, until }
const elements = new Map(); // what is on the screen, by key
let run = memory.get(sessionStorage, 'run');
let room = null; // the present one
let known = []; // the names of the server's channels
let people = [];
let typingToldAt = 0;
let troubleSince = 0; // when the connection went, 0 while all is well
let stuckToEnd = true;
let logSize = ''; // as it was observed last

const isOwn = (message) => message.author === me.id;
const isReading = () => document.visibilityState === 'visible' && stuckToEnd;

function roomOf(name) {
  if (!rooms.has(name)) {
    const made = new Room(name);
    made.outbox = memory.get(sessionStorage, 'unsent')?.[name] ?? [];
    made.seen = memory.get(sessionStorage, 'seen')?.[name] ?? null;
    rooms.set(name, made);
  }
  return rooms.get(name);
}

function remember() {
  const all = [...rooms.values()];
  memory.set(sessionStorage, 'run', run);
  memory.set(sessionStorage, 'seen', Object.fromEntries(all.map(({ name, seen }) => [name, seen])));
  memory.set(sessionStorage, 'unsent', {
    ...memory.get(sessionStorage, 'unsent'),
    ...Object.fromEntries(all.map(({ name, outbox }) => [name, outbox])),
  });
}

/* ---- The connection ---- */

const connection = new Connection({
  onStatus: showStatus,
  onEvent: (event) => handlers[event.type]?.(event),
});

const handlers = {
  welcome({ run: newRun, you, channels, history }) {
    if (run !== newRun) {
      for (const each of rooms.values()) each.restart();
      memory.set(sessionStorage, 'seen', {});
      run = newRun;
    }
    Object.assign(me, you);
    known = Object.keys(channels);
    for (const [name, count] of Object.entries(channels)) {
      const each = roomOf(name);
      each.count = count;
      each.seen ??= count;
    }
    if (room.unread) room.newAfter ??= room.seen;
    room.merge(history, isOwn);
    // Sent before the connection was lost, or while there was none: now.
    for (const message of room.outbox) transmit(message);
    typing.clear();
    showMe();
    showAll();
    setTimeout(() => {
      $('log').ariaLive = 'polite';
    });
  },

  message(message) {
    room.add(message, isOwn(message));
    typing.delete(message.author);
    if (isOwn(message) && room.unread === 1) room.seen = room.count;
    showAll();
  },

  here(event) {
    people = event.people;
    showPeople();
  },

  typing({ id, name }) {
    if (id !== me.id) typing.set(id, { name, until: Date.now() + TYPING_LASTS });
    showTyping();
  },

  activity({ channel, count }) {
    const other = roomOf(channel);
    if (!known.includes(channel)) known.push(channel);
    other.seen ??= 0;
    other.count = count;
    showChannels();
  },
};

function connect() {
  const url = new URL(`channels/${room.name}`, document.baseURI);
  url.protocol = url.protocol.replace('http', 'ws');
  connection.open(url.href, { name: me.name, key: me.key });
}

function transmit(message) {
  if (connection.send({ type: 'message', id: message.id, text: message.text }))
    message.sentAt = Date.now();
}

/* ---- What the reader does ---- */

function say(text) {
  const message = { id: randomId(), text, name: me.name, time: Date.now() };
  room.outbox.push(message);
  room.newAfter = null;
  stuckToEnd = true;
  transmit(message);
  showAll();
}

function go(name) {
  if (room?.name === name) return;
  if (room) {
    room.draft = $('text').value;
    room.newAfter = null;
  }
  room = roomOf(name);
  if (room.unread) room.newAfter = room.seen;
  memory.set(localStorage, 'channel', name);
  $('text').value = room.draft;
  people = [];
  typing.clear();
  stuckToEnd = true;
  $('log').ariaLive = 'off'; // a screen reader need not read the whole history out
  openSidebar(false);
  showAll();
  showPeople();
  fitComposer();
  if (hasMouse.matches && me.name) $('text').focus();
  if (me.name) connect();
}

function channelInAddress() {
  const name = location.hash.slice(1).toLowerCase();
  return CHANNEL_NAME.test(name) ? name : null;
}

function neighbour(step) {
  const names = channelNames();
  const index = names.indexOf(room.name) + step + names.length;
  location.hash = names[index % names.length];
}

/* ---- What is on the screen ---- */

function showAll() {
  showMessages();
  if (isReading()) room.seen = room.count;
  showChannels();
  showTyping();
  remember();
}

const channelNames = () => [...new Set([...known, room.name])];

function showChannels() {
  const links = channelNames().map((name) => {
    const { unread, outbox } = rooms.get(name);
    const link = element(
      'a',
      { href: `#${name}` },
      element('span', { className: 'hash', ariaHidden: 'true' }, '#'),
      element('span', { className: 'channel-label' }, name),
    );
    if (name === room.name) link.ariaCurrent = 'page';
    else if (outbox.length)
      link.append(
        element('span', { className: 'unsent' }, plural(outbox.length, 'unsent', 'unsent')),
      );
    if (unread)
      link.append(
        element(
          'span',
          { className: 'badge' },
          unread > 99 ? '99+' : `${unread}`,
          element('span', { className: 'visually-hidden' }, ' unread'),
        ),
      );
    link.classList.toggle('has-unread', unread > 0);
    return element('li', {}, link);
  });
  replaceKeepingFocus($('channels'), links);

  const unread = [...rooms.values()].reduce((sum, each) => sum + each.unread, 0);
  $('menu-badge').hidden = unread - room.unread === 0;
  document.title = `${unread ? `(${unread}) ` : ''}#${room.name} · Parley`;
  $('channel-name').textContent = room.name;
  $('text').placeholder = `Write to #${room.name}`;
  showJump();
}

function replaceKeepingFocus(place, children) {
  const focused = place.contains(document.activeElement)
    ? document.activeElement.getAttribute('href')
    : null;
  place.replaceChildren(...children);
  if (focused) place.querySelector(`[href="${focused}"]`)?.focus();
}

/** Puts the list on the screen in order, and touches only what has changed. */
function showMessages() {
  const place = $('messages');
  const wanted = new Set();
  let next = place.firstChild;
  for (const item of items()) {
    wanted.add(item.key);
    const shown = elements.get(item.key) ?? item.make();
    elements.set(item.key, shown);
    item.update?.(shown);
    if (shown === next) next = next.nextSibling;
    else place.insertBefore(shown, next);
  }
  for (const [name, shown] of elements) {
    if (!wanted.has(name)) {
      shown.remove();
      elements.delete(name);
    }
  }
  const isSilent = room.messages.length + room.outbox.length === 0;
  $('empty').hidden = Boolean(me.name) && !(isSilent && connection.status === 'online');
  $('outside').hidden = Boolean(me.name);
  $('silence').hidden = !me.name;
  $('empty-name').textContent = `#${room.name}`;
  if (stuckToEnd) scrollToEnd();
}

function* items() {
  let previous = null;
  let hasLine = room.newAfter === null;
  const unsent = room.outbox.map((message) => ({ ...message, author: me.id, isUnsent: true }));
  for (const message of [...room.messages, ...unsent]) {
    const date = midnight(message.time);
    if (!previous || midnight(previous.time) < date) {
      yield {
        key: `day/${date}/${room.name}`,
        make: () => separator('day'),
        update: (shown) => {
          shown.firstChild.textContent = day(date);
        },
      };
      previous = null;
    }
    if (!hasLine && message.number > room.newAfter && !isOwn(message)) {
      hasLine = true;
      previous = null;
      yield { key: `new/${room.name}`, make: () => separator('new', 'New') };
    }
    const follows =
      previous?.author === message.author &&
      previous.name === message.name &&
      message.time - previous.time < SAME_BREATH;
    yield {
      key: `${room.name}/${key(message)}`,
      make: () => messageElement(message),
      update: (shown) => updateMessage(shown, message, follows),
    };
    previous = message;
  }
}

const separator = (className, text = '') =>
  element('li', { className: `separator ${className}` }, element('span', {}, text));

function messageElement(message) {
  const stamp = element(
    'time',
    { dateTime: new Date(message.time).toISOString(), title: dateAndTime(message.time) },
    time(message.time),
  );
  const author = element('span', { className: 'author' }, message.name);
  author.style.setProperty('--hue', hue(message.name));
  return element(
    'li',
    { className: 'message' },
    avatar(message.name),
    element(
      'div',
      { className: 'body' },
      element('div', { className: 'meta' }, author, stamp),
      element(
        'div',
        { className: 'bubble', dir: 'auto', title: dateAndTime(message.time) },
        ...withLinks(message.text),
      ),
      element('div', { className: 'state' }),
    ),
  );
}

function updateMessage(shown, message, follows) {
  shown.classList.toggle('own', isOwn(message));
  shown.classList.toggle('follows', follows);
  shown.classList.toggle('unsent', Boolean(message.isUnsent));
  const state = message.isUnsent
    ? connection.status === 'online'
      ? 'Sending…'
      : 'Not sent yet'
    : '';
  const place = shown.querySelector('.state');
  if (place.textContent !== state) place.textContent = state;
}

function showPeople() {
  $('people').replaceChildren(
    ...people.map(({ id, name }) =>
      element(
        'li',
        {},
        avatar(name),
        element('span', { className: 'person' }, name),
        ...(id === me.id ? [element('span', { className: 'you' }, 'you')] : []),
      ),
    ),
  );
  $('people-count').textContent = people.length || '';
  const faces = people
    .filter(({ id }) => id !== me.id)
    .slice(0, 4)
    .map(({ name }) => avatar(name));
  if (people.length > 5)
    faces.push(element('span', { className: 'avatar more' }, `+${people.length - 5}`));
  $('faces').replaceChildren(...faces);
  showSummary();
}

function showSummary() {
  const others = people.length - 1;
  $('summary').textContent =
    connection.status !== 'online'
      ? $('my-status').textContent
      : others < 1
        ? 'Only you are here'
        : `${plural(people.length, 'person', 'people')} here`;
}

function showTyping() {
  const names = [...typing.values()].map(({ name }) => name);
  const text = names.length ? `${list(names)} ${names.length > 1 ? 'are' : 'is'} typing` : '';
  if ($('typing').textContent !== text) $('typing').textContent = text;
}

function showStatus(status) {
  if (status === 'online' || status === 'idle') troubleSince = 0;
  else troubleSince ||= Date.now() - (status === 'connecting' ? 0 : BANNER_AFTER);
  document.documentElement.dataset.status = status;
  $('my-status').textContent =
    { online: 'Online', waiting: 'Not connected', refused: 'Not connected', idle: 'Not joined yet' }[status] ??
    'Connecting…';
  if (status !== 'online') people = [];
  showMe();
  showPeople();
  showMessages();
  showBanner();
}

function showMe() {
  $('me').hidden = !me.name;
  $('my-name').textContent = me.name ?? '';
  if (me.name) paintAvatar($('my-avatar'), me.name);
}

function showBanner() {
  const { status, reason, retryAt } = connection;
  $('banner').hidden = !troubleSince || Date.now() - troubleSince < BANNER_AFTER;
  const text =
    status === 'refused'
      ? `${reason || 'The chat refused the connection'}.`
      : !navigator.onLine
        ? 'You are offline. What you write is kept.'
        : 'The connection is lost. What you write is kept.';
  if ($('banner-text').textContent !== text) $('banner-text').textContent = text;
  const seconds = Math.ceil((retryAt - Date.now()) / 1000);
  $('banner-countdown').textContent =
    status === 'waiting' && seconds > 0
      ? `Trying again in ${seconds} s`
      : status === 'connecting'
        ? 'Trying now…'
        : '';
  $('retry').textContent = status === 'refused' ? `Go to #${HOME}` : 'Try now';
  $('retry').hidden = status === 'connecting';
}

function showJump() {
  $('jump').hidden = stuckToEnd;
  $('jump-text').textContent = room.unread ? plural(room.unread, 'new message') : 'Latest messages';
}

const sizeOf = ({ clientWidth, clientHeight }) => `${clientWidth} × ${clientHeight}`;

const scrollToEnd = () => {
  $('log').scrollTop = $('log').scrollHeight;
};

function fitComposer() {
  const text = $('text');
  text.style.height = 'auto';
  text.style.height = `${Math.min(text.scrollHeight, 180)}px`;
  $('send').disabled = !text.value.trim() || room.isFull;
}

function openSidebar(open) {
  const isHidden = narrow.matches && !open;
  document.body.classList.toggle('sidebar-open', open);
  $('scrim').hidden = !open;
  $('sidebar').inert = isHidden;
  document.querySelector('main').inert = narrow.matches && open;
  $('open-sidebar').ariaExpanded = String(open);
}

/* ---- Listening to the reader ---- */

$('composer').addEventListener('submit', (event) => {
  event.preventDefault();
  const text = $('text').value.trim();
  if (!text || room.isFull) return;
  if (!me.name) {
    askName(); // and the text waits where it is
    return;
  }
  $('text').value = '';
  typingToldAt = 0;
  say(text);
  fitComposer();
  $('text').focus();
});

$('text').addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $('composer').requestSubmit();
});

$('text').addEventListener('input', () => {
  fitComposer();
  if (!$('text').value.trim() || Date.now() - typingToldAt < TYPING_EVERY) return;
  if (connection.send({ type: 'typing' })) typingToldAt = Date.now();
});

$('log').addEventListener('scroll', () => {
  const { scrollHeight, scrollTop, clientHeight } = $('log');
  if (sizeOf($('log')) !== logSize) return; // the window did it, not the reader
  const isAtEnd = scrollHeight - scrollTop - clientHeight < 48;
  if (isAtEnd === stuckToEnd) return;
  stuckToEnd = isAtEnd;
  if (isAtEnd) noticeReading();
  else lookAway();
});

$('jump').addEventListener('click', () => {
  stuckToEnd = true;
  scrollToEnd();
  noticeReading();
  $('text').focus();
});

/** What comes from here on is new when the reader looks again. */
function lookAway() {
  if (!room.unread) room.newAfter = room.count;
  showJump();
}

function noticeReading() {
  if (isReading()) room.seen = room.count;
  showChannels();
  remember();
}

addEventListener('hashchange', () => go(channelInAddress() ?? HOME));
addEventListener('resize', fitComposer);
addEventListener('online', () => connection.status === 'waiting' && connection.retry());
addEventListener('offline', showBanner);
document.addEventListener('visibilitychange', () => {
  if (document.visibilityState === 'hidden') {
    lookAway();
  } else {
    noticeReading();
    if (connection.status === 'waiting') connection.retry();
  }
});

addEventListener('keydown', (event) => {
  const isDialogs = Boolean(document.querySelector('dialog[open]'));
  if (event.key === 'Escape' && !isDialogs && document.body.classList.contains('sidebar-open')) {
    openSidebar(false);
    $('open-sidebar').focus();
  } else if (event.altKey && (event.key === 'ArrowUp' || event.key === 'ArrowDown')) {
    event.preventDefault();
    neighbour(event.key === 'ArrowUp' ? -1 : 1);
  }
});

$('retry').addEventListener('click', () => {
  if (connection.status === 'refused') location.hash = HOME;
  else connection.retry();
});
$('skip').addEventListener('click', (event) => {
  event.preventDefault(); // the part after # in the address is the channel
  $('text').focus();
});
$('open-sidebar').addEventListener('click', () => {
  openSidebar(true);
  $('close-sidebar').focus();
});
for (const id of ['close-sidebar', 'scrim']) {
  $(id).addEventListener('click', () => {
    openSidebar(false);
    $('open-sidebar').focus();
  });
}
narrow.addEventListener('change', () => openSidebar(false));
new ResizeObserver(() => {
  logSize = sizeOf($('log'));
  if (stuckToEnd) scrollToEnd();
}).observe($('log'));

/* ---- Dialogs ---- */

function askName() {
  $('name').value = me.name ?? memory.get(localStorage, 'name') ?? '';
  $('name-cancel').textContent = me.name ? 'Cancel' : 'Not now';
  $('join').textContent = me.name ? 'Change' : 'Join the chat';
  paintAvatar($('name-avatar'), $('name').value || '?');
  $('name-dialog').showModal();
  $('name').select();
}

$('name').addEventListener('input', () =>
  paintAvatar($('name-avatar'), $('name').value.trim() || '?'),
);
$('name-cancel').addEventListener('click', () => $('name-dialog').close());
$('name-dialog').addEventListener('close', () => me.name || $('enter').focus());
$('name-form').addEventListener('submit', (event) => {
  const name = $('name').value.trim();
  if (!name) {
    event.preventDefault(); // spaces only
    $('name').value = '';
    $('name').reportValidity();
    return;
  }
  if (name === me.name) return;
  me.name = name;
  memory.set(sessionStorage, 'name', name);
  memory.set(localStorage, 'name', name);
  openSidebar(false);
  connect();
  if (hasMouse.matches) setTimeout(() => $('text').focus());
});
for (const id of ['me', 'enter']) $(id).addEventListener('click', askName);

$('add-channel').addEventListener('click', () => {
  $('new-channel').value = '';
  $('channel-dialog').showModal();
});
$('new-channel').addEventListener('input', () => {
  const typed = $('new-channel').value;
  const tidy = typed
    .toLowerCase()
    .replace(/[\s_]/g, '-')
    .replace(/^#|[^a-z0-9-]/g, '');
  if (tidy !== typed) $('new-channel').value = tidy;
});
$('channel-cancel').addEventListener('click', () => $('channel-dialog').close());
$('channel-form').addEventListener('submit', () => {
  location.hash = $('new-channel').value;
});

/* ---- The clock ---- */

setInterval(() => {
  const now = Date.now();
  for (const [id, { until }] of typing) if (until < now) typing.delete(id);
  showTyping();
  showBanner();
  const isSilent = room.outbox.some(({ sentAt }) => now - sentAt > ECHO_TIMEOUT);
  if (isSilent && connection.status === 'online') connection.retry();
}, 500);

/* ---- Begin ---- */

openSidebar(false);
const first = channelInAddress() ?? memory.get(localStorage, 'channel') ?? HOME;
history.replaceState(null, '', `#${first}`);
go(first);
if (!me.name) {
  showStatus('idle');
  askName();
}
