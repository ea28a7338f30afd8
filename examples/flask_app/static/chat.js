/** The page of the chat: joins the connection, the rooms and what is on the screen. */

import { connect } from '../channels';
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
const BANNER_AFTER = 1_200; // a quick reconnection should not flash

const $ = (id) => document.getElementById(id);
const narrow = matchMedia('(max-width: 760px)');
const hasMouse = matchMedia('(pointer: fine)');

/* ---- What is remembered: what was seen and is not sent; the last room and name. ---- */

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

const me = { person: null, name: null }; // as the server has told
const rooms = new Map();
const typing = new Map(); // person → { name, until }
const elements = new Map(); // what is on the screen, by key
let channels = null; // the connection, when we have a name
let here = null; // the subscription that says who is in the present room
let status = 'idle';
let problem = ''; // why the server refuses us
let room = null; // the present one
let known = []; // the names of the rooms that there are
let isShowing = false;
let firstSeen = 0; // what is older counts as seen
let people = [];
let typingToldAt = 0;
let troubleSince = 0; // when the connection went, 0 while all is well
let stuckToEnd = true;
let logSize = ''; // as it was observed last

const isOwn = (message) => message.person === me.person;
const isReading = () => document.visibilityState === 'visible' && stuckToEnd;

function roomOf(name) {
  if (!rooms.has(name)) {
    const made = new Room(name);
    made.outbox = memory.get(sessionStorage, 'unsent')?.[name] ?? [];
    made.seen = memory.get(sessionStorage, 'seen')?.[name] ?? firstSeen;
    rooms.set(name, made);
  }
  return rooms.get(name);
}

function remember() {
  const all = [...rooms.values()];
  memory.set(sessionStorage, 'seen', Object.fromEntries(all.map(({ name, seen }) => [name, seen])));
  memory.set(sessionStorage, 'unsent', {
    ...memory.get(sessionStorage, 'unsent'),
    ...Object.fromEntries(all.map(({ name, outbox }) => [name, outbox])),
  });
}

/* ---- The channels: `rooms`, and for each of them `room:NAME` and `here:NAME` ---- */

/** Tell the server our name; it has an answer, and a cookie, for it. */
async function introduce(name) {
  const response = await fetch('me', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ name }),
  });
  if (!response.ok) throw new Error(`The name was refused (${response.status})`);
  await begin();
}

/** Ask who we are and what rooms there are, and connect if we have a name. */
async function begin() {
  const { you, rooms: names, now } = await (await fetch('me')).json();
  firstSeen ||= now;
  for (const name of names) meetRoom(name);
  if (you) enterChat(you);
  else askName();
  showAll();
}

function enterChat(you) {
  Object.assign(me, you);
  problem = '';
  channels?.close();
  channels = connect();
  channels.onState((state, those) => those === channels && showStatus(state));
  channels
    .subscribe('rooms', ({ room: name }) => meetRoom(name), { last: 100 })
    .onError((error) => refuse(error));
  for (const name of known) listen(name);
  enterRoom();
  // Written before the connection was lost, or while there was none.
  for (const each of rooms.values()) for (const message of each.outbox) transmit(each, message);
  showMe();
}

function meetRoom(name) {
  if (known.includes(name)) return;
  known.push(name);
  roomOf(name);
  if (channels) listen(name);
  showAll();
}

function listen(name) {
  const target = roomOf(name);
  const subscription = channels.subscribe(`room:${name}`, (message) => receive(target, message), {
    last: 100,
  });
  // Something may have been missed: what is kept of it comes now, and the rest is lost.
  subscription.onReset(async () => {
    const kept = await channels.history(`room:${name}`);
    for (const { data } of kept) receive(target, data);
  });
}

function enterRoom() {
  here?.unsubscribe();
  here = channels.subscribe(`here:${room.name}`, ({ person, name }) => {
    if (person !== me.person) typing.set(person, { name, until: Date.now() + TYPING_LASTS });
    showTyping();
  });
  here.onPresence(({ members }) => {
    // Someone with two windows, or with a new name, counts once.
    const latest = new Map([...members.values()].map((member) => [member.person, member]));
    people = [...latest.values()].sort((a, b) => a.name.localeCompare(b.name));
    showPeople();
  });
  if (!known.includes(room.name)) {
    channels.publish('rooms', { room: room.name }, { key: room.name }).catch(() => {});
  }
}

function receive(target, message) {
  target.add(message, isOwn(message));
  typing.delete(message.person);
  if (isOwn(message) && target.unread === 1) target.seen = target.latest;
  showSoon();
}

/** The server takes a message once, however often it is sent with the same key. */
async function transmit(target, message) {
  const { id, text } = message;
  delete message.refusal;
  try {
    await channels.publish(`room:${target.name}`, { id, text }, { key: id });
  } catch (error) {
    if (error.code === 'unknown') transmit(target, message);
    else if (error.code !== 'closed') message.refusal = error.message;
    showSoon();
  }
}

function refuse(error) {
  problem = error.message;
  showStatus('refused');
}

/* ---- What the reader does ---- */

function say(text) {
  const message = { id: randomId(), text, ...me, time: Date.now() };
  room.outbox.push(message);
  room.newAfter = null;
  stuckToEnd = true;
  transmit(room, message);
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
  if (channels) enterRoom();
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

/** Once for all messages that come in one go. */
function showSoon() {
  if (isShowing) return;
  isShowing = true;
  setTimeout(() => {
    isShowing = false;
    showAll();
  });
}

function showAll() {
  showMessages();
  if (isReading()) room.seen = room.latest;
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
  $('empty').hidden = Boolean(me.name) && !(isSilent && status === 'online');
  $('outside').hidden = Boolean(me.name);
  $('silence').hidden = !me.name;
  $('empty-name').textContent = `#${room.name}`;
  if (stuckToEnd) scrollToEnd();
}

function* items() {
  let previous = null;
  let hasLine = room.newAfter === null;
  const unsent = room.outbox.map((message) => ({ ...message, person: me.person, isUnsent: true }));
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
    if (!hasLine && message.time > room.newAfter && !isOwn(message)) {
      hasLine = true;
      previous = null;
      yield { key: `new/${room.name}`, make: () => separator('new', 'New') };
    }
    const follows =
      previous?.person === message.person &&
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
    ? message.refusal
      ? `Not sent: ${message.refusal}`
      : status === 'online'
        ? 'Sending…'
        : 'Not sent yet'
    : '';
  const place = shown.querySelector('.state');
  if (place.textContent !== state) place.textContent = state;
}

function showPeople() {
  $('people').replaceChildren(
    ...people.map(({ person, name }) =>
      element(
        'li',
        {},
        avatar(name),
        element('span', { className: 'person' }, name),
        ...(person === me.person ? [element('span', { className: 'you' }, 'you')] : []),
      ),
    ),
  );
  $('people-count').textContent = people.length || '';
  const faces = people
    .filter(({ person }) => person !== me.person)
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
    status !== 'online'
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

function showStatus(now) {
  status = now;
  if (status === 'online' || status === 'idle') troubleSince = 0;
  else troubleSince ||= Date.now() - (status === 'connecting' ? 0 : BANNER_AFTER);
  document.documentElement.dataset.status = status;
  $('my-status').textContent =
    { online: 'Online', connecting: 'Connecting…', idle: 'Not joined yet' }[status] ??
    'Not connected';
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
  $('banner').hidden = !troubleSince || Date.now() - troubleSince < BANNER_AFTER;
  const text =
    status === 'refused' || status === 'closed'
      ? `The chat has refused the connection. ${problem}`
      : status === 'offline'
        ? 'You are offline. What you write is kept.'
        : 'The connection is lost. What you write is kept.';
  if ($('banner-text').textContent !== text) $('banner-text').textContent = text;
  const seconds = Math.ceil(((channels?.retryAt ?? 0) - Date.now()) / 1000);
  $('banner-countdown').textContent =
    status === 'waiting' && seconds > 0
      ? `Trying again in ${seconds} s`
      : status === 'connecting'
        ? 'Trying now…'
        : '';
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
  if (status !== 'online') return;
  typingToldAt = Date.now();
  channels.publish(`here:${room.name}`, {}).catch(() => {});
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
  if (!room.unread) room.newAfter = room.latest;
  showJump();
}

function noticeReading() {
  if (isReading()) room.seen = room.latest;
  showChannels();
  remember();
}

addEventListener('hashchange', () => go(channelInAddress() ?? HOME));
addEventListener('resize', fitComposer);
document.addEventListener('visibilitychange', () => {
  if (document.visibilityState === 'hidden') {
    lookAway();
  } else {
    noticeReading();
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
  if (status === 'refused' || status === 'closed') introduce(me.name).catch(refuse);
  else channels?.retry();
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
  memory.set(localStorage, 'name', name);
  openSidebar(false);
  introduce(name).catch(refuse);
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
}, 500);

/* ---- Begin ---- */

openSidebar(false);
const first = channelInAddress() ?? memory.get(localStorage, 'channel') ?? HOME;
history.replaceState(null, '', `#${first}`);
go(first);
showStatus('idle');
begin().catch(refuse);
