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
let lastId = ''; // where we are in the server's log
let clockOffset = 0; // the server's clock may not be ours
const rows = []; // what the list tells, the newest first

const now = () => Date.now() + clockOffset;
const plot = new Plot($('plot'), now);

/* ---- The stream ---- */

function connect() {
  clearTimeout(timer);
  source?.close();
  source = new EventSource(`activity/events?after=${encodeURIComponent(lastId)}`);
  source.onopen = () => showStatus('online');
  source.onmessage = receive;
  source.onerror = lose;
}

function receive({ data, lastEventId }) {
  lastId = lastEventId;
  const { entries, ...summary } = JSON.parse(data);
  clockOffset = summary.now - Date.now();
  plot.add(entries);
  for (const entry of entries) addRow(entry);
  showSummary(summary);
  showRecent();
  setTimeout(() => {
    $('entries').ariaLive = 'polite'; // what had happened before need not be read out
  });
}

/** The browser comes back by itself, unless it got an answer that was no event stream. */
function lose() {
  showStatus('waiting');
  if (source.readyState === EventSource.CLOSED) timer = setTimeout(connect, RETRY);
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

function showSummary({ people, messages, channels }) {
  $('people').textContent = people.toLocaleString();
  $('messages').textContent = messages.toLocaleString();
  const most = Math.max(1, ...channels.map((channel) => channel.messages));
  $('channels').replaceChildren(...channels.map((channel) => tally(channel, most)));
}

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
