/** The page of live activity: an EventSource, a picture, and the same in words. */

import { Plot } from './plot.js';
import { avatar, dateAndTime, element, hue, plural, time } from './text.js';

const MOST_ROWS = 100;
const MOST_AUTHORS = 6; // so many colours are named
const SAME_BREATH = 60_000; // messages this close together share a row
const RETRY = 2_000;

const $ = (id) => document.getElementById(id);

let source = null;
let timer = 0;
let lastId = ''; // the cursor of the last message
let present = new Map(); // room → who is there, by the id of the member
const complete = new Set(); // rooms whose members this stream has told
const counts = new Map(); // room → messages
const rows = []; // what the list tells, the newest first

const plot = new Plot($('plot'), () => Date.now());

/* ---- The stream ---- */

/** `before` is who was there, where that is to be compared: a lost stream tells no news. */
function connect(before = new Map()) {
  clearTimeout(timer);
  source?.close();
  source = new EventSource(`activity/events?after=${encodeURIComponent(lastId)}`);
  source.onopen = () => {
    present = before;
    before = new Map(); // of a stream that the browser opens again by itself
    complete.clear(); // who is there comes anew
    showStatus('online');
  };
  source.onmessage = receive;
  source.onerror = lose;
}

function receive({ data, lastEventId }) {
  lastId = lastEventId || lastId;
  const { channel, data: message, joined, left } = JSON.parse(data);
  const [kind, room] = channel.split(':');
  if (joined || left) meet(room, joined, left);
  else if (kind === 'here' || !message) return;
  else if (message.room) setTimeout(follow, 500, message.room);
  else if (message.time) count(room, message);
  showSummary();
  showRecent();
  setTimeout(() => {
    $('entries').ariaLive = 'polite'; // what had happened before need not be read out
  });
}

/** A room that was started is not in the stream that we have, but in the next one. */
function follow(room) {
  if (present.has(room) || source.readyState !== EventSource.OPEN) return;
  present.set(room, new Map());
  connect(present);
}

function count(channel, { name, time }) {
  counts.set(channel, (counts.get(channel) ?? 0) + 1);
  tell({ type: 'message', name, channel, time });
}

/** The first time all who are there come, and then those who join or leave. */
function meet(channel, joined = {}, left = []) {
  const before = present.get(channel);
  const after = new Map([...(complete.has(channel) ? before : []), ...Object.entries(joined)]);
  complete.add(channel);
  for (const id of left) after.delete(id);
  present.set(channel, after);
  if (!before) return;
  const add = (type) => (name) => tell({ type, name, channel, time: Date.now() });
  namesOnlyIn(after, before).forEach(add('join'));
  namesOnlyIn(before, after).forEach(add('leave'));
}

const namesOnlyIn = (these, those) =>
  [...these].filter(([id]) => !those.has(id)).map(([, { name }]) => name);

function tell(entry) {
  plot.add([entry]);
  addRow(entry);
}

/** The browser comes back by itself, unless it got an answer that was no event stream. */
function lose() {
  showStatus('waiting');
  if (source.readyState === EventSource.CLOSED) timer = setTimeout(() => connect(), RETRY);
}

/** Browsers keep few connections to a server: a page that nobody sees needs none. */
function followVisibility() {
  if (document.visibilityState === 'visible') connect();
  else {
    clearTimeout(timer);
    source?.close();
  }
}

/* ---- What is on the screen ---- */

function showStatus(status) {
  document.documentElement.dataset.status = status;
  const text = status === 'online' ? 'Live' : 'The connection is lost. Trying again…';
  if ($('status').textContent !== text) $('status').textContent = text;
}

function showSummary() {
  const persons = [...present.values()].flatMap((members) => [...members.values()]);
  $('people').textContent = countPersons(persons).toLocaleString();
  const total = [...counts.values()].reduce((sum, each) => sum + each, 0);
  $('messages').textContent = total.toLocaleString();
  const most = Math.max(1, ...counts.values());
  const tallies = [...present].map(([name, members]) => ({
    name,
    people: countPersons([...members.values()]),
    messages: counts.get(name) ?? 0,
  }));
  $('channels').replaceChildren(...tallies.map((each) => tally(each, most)));
}

const countPersons = (members) => new Set(members.map(({ person }) => person)).size;

function showRecent() {
  const { messages, isEmpty } = plot;
  $('quiet').hidden = !isEmpty;
  $('recent').textContent = messages.toLocaleString();
  const label = `${plural(messages, 'message')} in the last two minutes`;
  if ($('plot').ariaLabel !== label) $('plot').ariaLabel = label;
  showAuthors(plot.names);
}

/** By name, so that they do not change places whenever one of them writes. */
function showAuthors(names) {
  const shown = names.slice(0, MOST_AUTHORS).sort((a, b) => a.localeCompare(b));
  const items = shown.map((name) => {
    const item = element('li', { dir: 'auto' }, name);
    item.style.setProperty('--hue', hue(name));
    return item;
  });
  const others = names.length - shown.length;
  if (others) items.push(element('li', { className: 'more' }, plural(others, 'other')));
  $('authors').replaceChildren(...items);
}

function tally({ name, people, messages }, most) {
  const bar = element('span', { className: 'bar', ariaHidden: 'true' });
  bar.style.setProperty('--part', messages / most);
  return element(
    'li',
    {},
    element('a', { href: `./#${name}` }, `#${name}`),
    element('span', {}, `${people} here, ${plural(messages, 'message')}`),
    bar,
  );
}

function addRow(entry) {
  const row = rows.find(({ name, channel }) => name === entry.name && channel === entry.channel);
  if (row && continues(row, entry)) {
    row.count += 1;
    row.what.textContent = deed(row);
    return;
  }
  rows.unshift({ ...entry, count: 1, what: element('span') });
  $('entries').prepend(rowElement(rows[0]));
  $('nothing').hidden = true;
  if (rows.length > MOST_ROWS) {
    rows.pop();
    $('entries').lastChild.remove();
  }
}

const continues = (row, entry) =>
  entry.type === 'message' && row.type === 'message' && entry.time - row.time < SAME_BREATH;

function rowElement(row) {
  const at = { dateTime: new Date(row.time).toISOString(), title: dateAndTime(row.time) };
  row.what.textContent = deed(row);
  return element(
    'li',
    { className: row.type === 'leave' ? 'gone' : '' },
    avatar(row.name),
    element(
      'p',
      {},
      element('strong', { dir: 'auto' }, row.name),
      row.what,
      ' ',
      element('a', { href: `./#${row.channel}` }, `#${row.channel}`),
    ),
    element('time', at, time(row.time)),
  );
}

const deed = ({ type, count }) =>
  ({ join: ' joined', leave: ' left' })[type] ??
  ` wrote ${count === 1 ? 'a message' : plural(count, 'message')} in`;

/* ---- Begin ---- */

document.addEventListener('visibilitychange', followVisibility);
setInterval(showRecent, 1_000);
followVisibility();
