/**
 * Channels in a browser: subscribe, publish, and miss nothing without being told.
 *
 *     import { connect } from '/channels';
 *     const channels = connect('/channels', { since: cursorOfThePage });
 *     const room = channels.subscribe('room:42', (data, message) => show(data));
 *     room.onReset(() => fetchTheState());
 *     await channels.publish('room:42', { text: 'hello' });
 *
 * It holds one connection: a WebSocket, or an event stream (with POST for publishing) where
 * WebSockets do not pass. When that is lost it comes back after a random time, and resumes from
 * the last cursor that it has got. What was published meanwhile comes first; where that is not
 * possible, the callbacks of `onReset` are called.
 *
 * Two rules make the resuming safe:
 * - The last id that came vouches for everything before it, in all channels that are confirmed
 *   (`subscribed` has come). One cursor, and one message, resumes all of them.
 * - A channel that is not confirmed yet has a cursor of its own, and moves no other one.
 *
 * @typedef {{channel: string, id: string, data: any}} Message
 * @typedef {'connecting' | 'online' | 'waiting' | 'offline' | 'closed'} State
 */

const FIRST_DELAY = 1_000; // ms; doubled with each failure, and multiplied by a random number
const LONGEST_DELAY = 30_000;
const SPREAD = 3_000; // of those that a server sends away when it stops
const OPEN_TIMEOUT = 15_000;
const QUIET = 25_000; // after which the connection is tested
const ANSWER_TIMEOUT = 10_000;
const HEALTHY = 10_000; // a connection that lived so long was none of the failures
const WEBSOCKET_FAILURES = 2; // in a row, before the event stream is tried
const WEBSOCKET_AGAIN = 60_000;
const KEY_LIFETIME = 240_000; // the server knows a key for 300 s
const GONE = { code: 1006, reason: '' };

/** What was refused: `code` is 'forbidden', 'invalid', 'limit', 'unknown' or 'closed'. */
export class ChannelsError extends Error {
  constructor(code, message, channel) {
    super(message);
    this.name = 'ChannelsError';
    this.code = code;
    this.channel = channel;
  }
}

/**
 * Connect to the endpoint of the server, by default the one that this script came from.
 * @param {string} [url]
 * @param {{since?: string}} [options] `since`: the cursor of the page's state, the default for
 *   subscriptions that name neither `since` nor `last`.
 */
export function connect(url = import.meta.url, options = {}) {
  return new Channels(new URL(url, document.baseURI), options);
}

/** The channels that are subscribed, the requests that wait, and the connection for them. */
class Channels {
  #url;
  #since;
  #cursor = null; // everything up to here has come, in all confirmed channels
  #subscriptions = new Map(); // channel → Subscription
  #requests = new Map(); // ref → Request
  #lastRef = 0;
  #listeners = new Set();
  #transport = null;
  #openedAt = 0;
  #heardAt = 0;
  #timer = 0; // the next attempt, or the test of a quiet connection
  #isAsked = false; // a ping is out
  #failures = 0;
  #webSocketFailures = 0;
  #triedStream = false;
  #trial = null; // a WebSocket that would replace the event stream
  #trialTimer = 0;
  #changed = false; // the event stream must be opened with other channels

  /** @type {State} */
  state = 'connecting';
  /** The code and the reason of the last end: of a WebSocket, or 1006. */
  closed = GONE;
  /** When the next attempt is made, as of Date.now(). */
  retryAt = 0;

  constructor(url, { since = null } = {}) {
    this.#url = url;
    this.#since = since;
    addEventListener('online', this.#online);
    addEventListener('offline', this.#offline);
    addEventListener('pagehide', this.#hide);
    addEventListener('pageshow', this.#show);
    document.addEventListener('visibilitychange', this.#visible);
    // What is subscribed in this turn goes out with the first message.
    this.#timer = setTimeout(() => this.#open(), 0);
  }

  /** 'websocket', 'eventsource' or '' while there is no connection. */
  get transport() {
    return this.state === 'online' ? this.#transport.name : '';
  }

  /**
   * Call `listener(state, channels)` now and when the state changes; returns a function to stop.
   * @param {(state: State, channels: Channels) => void} listener
   */
  onState(listener) {
    this.#listeners.add(listener);
    call(listener, this.state, this);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Get what is published to a channel. Another listener of the same channel shares it.
   * @param {string} channel
   * @param {(data: any, message: Message) => void} listener
   * @param {{since?: string, last?: number, presence?: boolean, token?: string}} [options]
   *   `since`: a cursor: what came after it is first. `last`: so many of the last messages first.
   *   `presence`: know who is there. `token`: the signed name of the channel.
   * @returns {Subscription}
   */
  subscribe(channel, listener, options = {}) {
    this.#check();
    let found = this.#subscriptions.get(channel);
    if (found && (options.since || options.last)) {
      throw new TypeError(`${channel} is subscribed to already: it cannot begin elsewhere`);
    }
    if (!found) {
      const since = options.since ?? (options.last ? null : this.#since);
      found = new Subscription(channel, { ...options, since }, () => this.#unsubscribe(found));
      this.#subscriptions.set(channel, found);
      this.#enter([found]);
    }
    found.add(listener);
    return found;
  }

  /**
   * Publish; the promise has the cursor of the message. It waits for a connection, and is sent
   * again when that is lost, with the same key, so that it is published once.
   * @param {string} channel
   * @param {any} data
   * @param {{key?: string}} [options]
   * @returns {Promise<string>}
   */
  publish(channel, data, { key = randomKey() } = {}) {
    return this.#request({ publish: channel, data, key }).then((answer) => answer.published);
  }

  /**
   * What is kept of a channel, the oldest first.
   * @param {string} channel
   * @param {{since?: string, limit?: number, token?: string}} [options]
   * @returns {Promise<Message[]>}
   */
  history(channel, options = {}) {
    return this.#request({ history: channel, ...options }).then((answer) => answer.messages);
  }

  /**
   * Who is in a channel: by id, the data of each connection. Above 1000 only their number comes.
   * @returns {Promise<{count: number, members?: Object<string, any[]>}>}
   */
  presence(channel, options = {}) {
    return this.#request({ presence: channel, ...options }).then(({ count, members }) => ({
      count,
      members,
    }));
  }

  /** Try to connect now, instead of at `retryAt`. */
  retry() {
    if (this.state === 'waiting' || this.state === 'offline') this.#open();
  }

  /** End it. Promises that wait are rejected. */
  close() {
    this.#end({ code: 1000, reason: '' });
  }

  // Subscriptions

  #unsubscribe(subscription) {
    const { channel } = subscription;
    if (this.#subscriptions.get(channel) !== subscription) return;
    this.#subscriptions.delete(channel);
    this.#change({ unsubscribe: channel });
  }

  /** Ask for subscriptions: those that can share a message do. */
  #enter(subscriptions) {
    if (this.state !== 'online') return;
    for (const message of this.#messages(subscriptions)) this.#change(message);
  }

  #change(message) {
    if (this.state !== 'online') return;
    if (this.#transport.name === 'websocket') {
      this.#transport.send(message);
    } else if (!this.#changed) {
      // An event stream is opened anew with all channels, once for all changes of this turn.
      this.#changed = true;
      setTimeout(() => {
        this.#changed = false;
        if (this.state === 'online' && this.#transport.name === 'eventsource') this.#open();
      }, 0);
    }
  }

  #messages(subscriptions) {
    const groups = new Map();
    for (const one of subscriptions) {
      one.begin();
      const { presence, last } = one.options;
      const since = one.isConfirmed ? this.#cursor : one.cursor;
      const details = { since: since || undefined, presence: presence || undefined };
      if (!since && last) details.last = last;
      const group = JSON.stringify(details);
      if (!groups.has(group)) groups.set(group, { subscribe: [], ...details, token: [] });
      groups.get(group).subscribe.push(one.channel);
      if (one.options.token) groups.get(group).token.push(one.options.token);
    }
    return [...groups.values()];
  }

  // Requests

  #request(message) {
    return new Promise((resolve, reject) => {
      this.#check();
      const ref = ++this.#lastRef;
      const request = { message: { ...message, ref }, resolve, reject, sentAt: 0 };
      JSON.stringify(request.message); // now, where its error belongs
      this.#requests.set(ref, request);
      if (this.state === 'online') this.#ask(request);
    });
  }

  #ask(request) {
    const { message } = request;
    if (message.publish && request.sentAt && Date.now() - request.sentAt > KEY_LIFETIME) {
      const text = 'it is not known whether this was published, and its key is too old';
      this.#settle(message.ref, new ChannelsError('unknown', text, message.publish));
      return;
    }
    request.sentAt ||= Date.now();
    this.#transport.ask(message);
  }

  #settle(ref, error, answer) {
    const request = this.#requests.get(ref);
    if (!request) return;
    if (error?.code === 'unavailable' || error?.code === 'rate') {
      setTimeout(() => {
        if (this.state === 'online' && this.#requests.has(ref)) this.#ask(request);
      }, 500 + Math.random() * 2_500);
      return;
    }
    this.#requests.delete(ref);
    if (error) request.reject(error);
    else request.resolve(answer);
  }

  // What comes

  #receive(message) {
    if (message.error) this.#refused(message);
    else if (message.channel !== undefined) this.#deliver(message);
    else if (message.subscribed !== undefined) this.#confirm(message);
    else if (message.ref !== undefined) this.#settle(message.ref, null, message);
  }

  #deliver(message) {
    const subscription = this.#subscriptions.get(message.channel);
    if (message.id) {
      if (subscription?.isConfirmed ?? true) this.#cursor = message.id;
      if (subscription) subscription.cursor = message.id;
    }
    subscription?.deliver(message);
  }

  #confirm({ subscribed, id, recovered }) {
    for (const channel of [subscribed].flat()) {
      const subscription = this.#subscriptions.get(channel);
      if (!subscription) continue; // it was given up meanwhile
      if (id) {
        subscription.isConfirmed = true;
        subscription.cursor = id;
      }
      subscription.recovered = recovered;
    }
    if (id) this.#cursor = id;
  }

  #refused({ error, message, channel, ref }) {
    const reason = new ChannelsError(error, message, channel);
    if (ref !== undefined) {
      this.#settle(ref, reason);
    } else if (error === 'unavailable') {
      this.#lose({ code: 1013, reason: message }); // all comes back, and asks again
    } else if (this.#subscriptions.has(channel)) {
      const subscription = this.#subscriptions.get(channel);
      this.#subscriptions.delete(channel);
      subscription.refuse(reason);
    } else {
      console.warn(`channels: ${error}: ${message}`);
    }
  }

  // The connection

  #open() {
    this.#drop();
    const subscriptions = [...this.#subscriptions.values()];
    for (const subscription of subscriptions) subscription.begin();
    this.#changed = false;
    this.#triedStream = this.#webSocketFailures >= WEBSOCKET_FAILURES && !this.#triedStream;
    const Transport = this.#triedStream ? EventStream : Socket;
    this.#become('connecting');
    this.#openedAt = 0;
    this.#adopt(new Transport(this.#url, this.#messages(subscriptions)));
    this.#timer = setTimeout(() => this.#lose(GONE), OPEN_TIMEOUT);
  }

  /** Use a transport from now on. */
  #adopt(transport) {
    this.#transport = transport;
    // One that was dropped may still report something.
    const ifPresent = (handle) => (value) => {
      if (this.#transport === transport) handle(value);
    };
    transport.onmessage = ifPresent((message) => {
      this.#hear();
      this.#receive(message);
    });
    transport.onlife = ifPresent(() => this.#hear());
    transport.onfailure = ifPresent(({ ref, error }) => this.#settle(ref, error));
    transport.onclose = ifPresent((end) => this.#lose(end));
  }

  /** Something has come. */
  #hear() {
    this.#heardAt = Date.now();
    this.#isAsked = false;
    if (this.state === 'online') return;
    this.#openedAt = Date.now();
    if (this.#transport.name === 'websocket') this.#triedStream = false;
    else this.#tryWebSocket(1_000 + Math.random() * 5_000); // the server may just have been away
    this.#become('online');
    if (this.#missed()) this.#change({}); // subscribed while it was opened
    for (const request of [...this.#requests.values()]) this.#ask(request);
    this.#watch();
  }

  /** What was subscribed or given up since the transport was opened. */
  #missed() {
    const asked = new Set(this.#transport.messages.flatMap((message) => message.subscribe));
    const isSame =
      asked.size === this.#subscriptions.size && [...asked].every((c) => this.#subscriptions.has(c));
    if (isSame) return false;
    if (this.#transport.name === 'eventsource') return true;
    const given = [...asked].filter((channel) => !this.#subscriptions.has(channel));
    if (given.length) this.#transport.send({ unsubscribe: given });
    this.#enter([...this.#subscriptions.values()].filter((one) => !asked.has(one.channel)));
    return false;
  }

  /** Look after a while whether the connection still lives. */
  #watch(delay = QUIET) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      const quiet = Date.now() - this.#heardAt;
      if (this.#isAsked) {
        this.#lose(GONE);
      } else if (quiet < QUIET) {
        this.#watch(QUIET - quiet);
      } else {
        this.#test();
      }
    }, delay);
  }

  /** Something must come soon: the answer to a ping, or a comment of an event stream. */
  #test() {
    this.#isAsked = true;
    if (this.#transport.name === 'websocket') this.#transport.send({ ping: 1 });
    this.#watch(ANSWER_TIMEOUT);
  }

  #lose({ code, reason }) {
    const { name } = this.#transport ?? {};
    const lived = this.#openedAt ? Date.now() - this.#openedAt : 0;
    const isSentAway = code === 1001 || code === 1012 || code === 1013;
    this.#drop();
    this.closed = { code, reason };
    if (code === 1008 || (code >= 4400 && code < 4500)) {
      this.#end(this.closed);
      return;
    }
    if (name === 'websocket' && !isSentAway) {
      this.#webSocketFailures = lived > HEALTHY ? 0 : this.#webSocketFailures + 1;
    } else if (name === 'eventsource' && lived) {
      this.#triedStream = false; // it works, so the next attempt is one, too
    }
    this.#failures = lived > HEALTHY ? 0 : this.#failures + 1;
    this.#retry(isSentAway ? SPREAD : FIRST_DELAY);
  }

  #retry(shortest, state = navigator.onLine === false ? 'offline' : 'waiting') {
    // Full jitter: the browsers of a restarted server must not come back at the same time.
    const longest = Math.min(LONGEST_DELAY, shortest * 2 ** Math.max(0, this.#failures - 1));
    const delay = state === 'offline' ? LONGEST_DELAY : Math.random() * longest;
    this.retryAt = Date.now() + delay;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#open(), delay);
    this.#become(state);
  }

  #drop() {
    clearTimeout(this.#timer);
    clearTimeout(this.#trialTimer);
    this.#trial?.close();
    const transport = this.#transport;
    this.#transport = this.#trial = null;
    transport?.close();
  }

  #end(closed) {
    if (this.state === 'closed') return;
    this.#drop();
    this.closed = closed;
    removeEventListener('online', this.#online);
    removeEventListener('offline', this.#offline);
    removeEventListener('pagehide', this.#hide);
    removeEventListener('pageshow', this.#show);
    document.removeEventListener('visibilitychange', this.#visible);
    const error = new ChannelsError('closed', `closed with ${closed.code} ${closed.reason}`.trim());
    for (const ref of [...this.#requests.keys()]) this.#settle(ref, error);
    this.#become('closed');
  }

  /** From time to time, look whether a WebSocket passes by now. */
  #tryWebSocket(delay = WEBSOCKET_AGAIN) {
    clearTimeout(this.#trialTimer);
    this.#trialTimer = setTimeout(() => {
      this.#trial?.close();
      const trial = (this.#trial = new Socket(this.#url, []));
      const give_up = () => {
        trial.close();
        if (this.#trial === trial) this.#tryWebSocket();
      };
      const timer = setTimeout(give_up, OPEN_TIMEOUT);
      trial.onclose = () => {
        clearTimeout(timer);
        give_up();
      };
      trial.onmessage = () => {
        clearTimeout(timer);
        if (this.#trial !== trial) return;
        this.#webSocketFailures = 0;
        this.#triedStream = false;
        this.#open();
      };
    }, delay);
  }

  // The browser

  #online = () => {
    if (this.state === 'waiting' || this.state === 'offline') {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#open(), Math.random() * 500);
    } else if (this.state === 'online') {
      if (this.#transport.name === 'eventsource') this.#tryWebSocket(Math.random() * 500);
      this.#test(); // the address of this computer may have changed
    }
  };

  #offline = () => {
    this.#drop();
    this.#retry(FIRST_DELAY, 'offline'); // slowly, for some browsers are wrong about it
  };

  #hide = () => {
    // A page with a connection could not be kept for the way back (bfcache).
    this.#drop();
    this.#become('waiting');
  };

  #show = (event) => {
    if (event.persisted && this.state === 'waiting') this.#open();
  };

  #visible = () => {
    if (document.visibilityState !== 'visible') return;
    // The timers of a hidden page are late, or did not run at all.
    if (this.state === 'online' && Date.now() - this.#heardAt > QUIET) this.#test();
    else if (this.state === 'waiting' && this.#timer) this.#online();
  };

  #become(state) {
    if (this.state === state) return;
    this.state = state;
    for (const listener of [...this.#listeners]) call(listener, state, this);
  }

  #check() {
    if (this.state === 'closed') throw new ChannelsError('closed', 'these channels are closed');
  }
}

/** A channel of a page. */
class Subscription {
  #listeners = { message: new Set(), reset: new Set(), presence: new Set(), error: new Set() };
  #leave;
  #seen = null; // the number of the last message
  #isStale = true; // the members are of an earlier connection

  /** The cursor up to which everything has come. */
  cursor;
  isConfirmed = false;
  /** Whether nothing was missed since the last connection; null where that is not known. */
  recovered = null;
  /** Who is there, where that was asked for: the data by id. */
  members = new Map();
  /** How many are there. */
  count = 0;

  constructor(channel, options, leave) {
    this.channel = channel;
    this.options = options;
    this.cursor = options.since;
    this.#leave = leave;
  }

  /** Call `listener({id})` when messages may have been missed: fetch the state then. */
  onReset(listener) {
    return this.#on('reset', listener);
  }

  /** Call `listener({members, count, joined, left})` when someone comes or goes. */
  onPresence(listener) {
    return this.#on('presence', listener);
  }

  /** Call `listener(error)` when the server refuses the subscription; it has ended then. */
  onError(listener) {
    return this.#on('error', listener);
  }

  /** Get the channel no more. */
  unsubscribe() {
    for (const listeners of Object.values(this.#listeners)) listeners.clear();
    this.#leave();
  }

  add(listener) {
    if (listener) this.#listeners.message.add(listener);
  }

  /** It is asked for: the members come anew, before or after the confirmation. */
  begin() {
    this.#isStale = true;
  }

  deliver(message) {
    if (message.reset) {
      this.#emit('reset', message);
    } else if (message.data !== undefined) {
      const number = parseNumber(message.id);
      if (number && this.#seen?.epoch === number.epoch && number.number <= this.#seen.number) return;
      this.#seen = number;
      this.#emit('message', message.data, message);
    } else {
      this.#meet(message);
    }
  }

  refuse(error) {
    if (!this.#listeners.error.size) console.warn(`channels: ${this.channel}: ${error.message}`);
    this.#emit('error', error);
  }

  #meet({ joined = {}, left = [], count }) {
    if (this.#isStale || count !== undefined) this.members.clear();
    this.#isStale = false;
    for (const [id, data] of Object.entries(joined)) this.members.set(id, data);
    for (const id of left) this.members.delete(id);
    this.count = count ?? this.members.size;
    this.#emit('presence', { members: this.members, count: this.count, joined, left });
  }

  #on(type, listener) {
    this.#listeners[type].add(listener);
    return () => this.#listeners[type].delete(listener);
  }

  #emit(type, ...values) {
    for (const listener of [...this.#listeners[type]]) call(listener, ...values);
  }
}

// The transports: each is made with the messages that subscribe, and calls `onmessage(message)`,
// `onlife()`, `onfailure({ref, error})` and `onclose({code, reason})`.

class Socket {
  name = 'websocket';
  #socket;

  constructor(url, messages) {
    this.messages = messages;
    const target = new URL(url);
    target.protocol = target.protocol.replace('http', 'ws');
    target.hash = '';
    this.#socket = new WebSocket(target.href);
    this.#socket.onopen = () => {
      this.send({ ping: 1 }); // its answer says that messages pass
      for (const message of messages) this.send(message);
    };
    this.#socket.onmessage = ({ data }) => this.onmessage(JSON.parse(data));
    this.#socket.onclose = ({ code, reason }) => this.onclose({ code, reason });
  }

  send(message) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  ask(message) {
    this.send(message);
  }

  close() {
    this.#socket.close();
  }

  onmessage() {}
  onlife() {}
  onfailure() {}
  onclose() {}
}

/** Server-sent events, read by fetch: an EventSource does not tell why it could not be opened. */
class EventStream {
  name = 'eventsource';
  #url;
  #abort = new AbortController();

  constructor(url, messages) {
    this.messages = messages;
    this.#url = url;
    this.#read().then(
      () => this.onclose(GONE),
      () => this.onclose(GONE),
    );
  }

  async #read() {
    const response = await this.#post(this.messages, 'text/event-stream');
    if (response.status === 401 || response.status === 403) {
      this.#refuse(response.status, await response.json().catch(() => ({})));
      return;
    }
    if (!response.ok) return;
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ''; ; ) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split(/\r\n|\n/);
      rest = lines.pop();
      this.onlife();
      for (const line of lines) {
        if (line.startsWith('data:')) this.onmessage(JSON.parse(line.slice(5)));
      }
    }
  }

  #refuse(status, { message = '' }) {
    this.onclose({ code: 4000 + status, reason: message });
  }

  async ask(message) {
    const { ref } = message;
    try {
      const response = await this.#post(message, 'application/json');
      const answer = await response.json();
      if (answer.error) throw new ChannelsError(answer.error, answer.message, answer.channel);
      this.onmessage(answer);
    } catch (error) {
      if (this.#abort.signal.aborted) return; // it is sent again by the next transport
      const unknown = new ChannelsError('unavailable', String(error));
      this.onfailure({ ref, error: error instanceof ChannelsError ? error : unknown });
    }
  }

  #post(message, accept) {
    return fetch(this.#url, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', Accept: accept },
      body: JSON.stringify(message),
      credentials: 'include',
      cache: 'no-store',
      signal: this.#abort.signal,
    });
  }

  send() {}

  close() {
    this.#abort.abort();
  }

  onmessage() {}
  onlife() {}
  onfailure() {}
  onclose() {}
}

function call(listener, ...values) {
  try {
    listener(...values);
  } catch (error) {
    reportError(error); // as of an event's listener: the others are called
  }
}

function randomKey() {
  // Not randomUUID, which pages without TLS do not have.
  return [...crypto.getRandomValues(new Uint8Array(16))]
    .map((byte) => byte.toString(16).padStart(2, '0'))
    .join('');
}

/** The number of a message, which rises in its channel as long as the epoch is the same. */
function parseNumber(id) {
  const match = /^(\d+)-([^_]+)/.exec(id ?? '');
  return match && { number: Number(match[1]), epoch: match[2] };
}
