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
 * `Channels` and `Subscription` are what a page uses. A `Line` keeps the connection: it opens,
 * watches and changes it. `Socket` and `EventStream` are its two kinds.
 *
 * @typedef {{channel: string, id: string, data: any}} Message
 * @typedef {'connecting' | 'online' | 'waiting' | 'offline' | 'closed'} State
 */

/** In ms. Another value may be given to `connect`, as `times: { webSocketAgain: 5_000 }`. */
const TIMES = {
  firstDelay: 1_000, // at most, before coming back; doubled with each failure in a row
  longestDelay: 30_000,
  spread: 3_000, // the first delay where a server sends all its clients away, since it stops
  openTimeout: 15_000,
  quiet: 25_000, // after which a connection is tested
  answerTimeout: 10_000, // of that test
  healthy: 10_000, // a connection that lived so long was none of the failures
  webSocketAgain: 60_000, // between two looks, from an event stream, whether a WebSocket passes
};
const WEBSOCKET_FAILURES = 2; // in a row, before the event stream is tried
const KEY_LIFETIME = 240_000; // the server knows a key for 300 s
const GONE = { code: 1006, reason: '' };
const RESTART = { code: 1012, reason: '' };

/** What was refused. `code` is 'forbidden', 'invalid', 'limit', 'unknown' or 'closed'. */
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
 * @param {{since?: string, times?: Object<string, number>}} [options] `since`: the cursor of the
 *   page's state, the default for subscriptions that name neither `since` nor `last`. `times`:
 *   some of `TIMES`.
 */
export function connect(url = import.meta.url, options = {}) {
  return new Channels(new URL(url, document.baseURI), options);
}

/**
 * What the page subscribes to, and what it has asked for.
 *
 * The last id that has come vouches for everything before it, in all channels that are confirmed
 * (`subscribed` has come, in this connection). So one cursor resumes all of them. A channel that is
 * not confirmed has a cursor of its own, and its messages do not move that of the others.
 */
class Channels {
  #since;
  #cursor = null; // everything up to here has come, in all confirmed channels
  #subscriptions = new Map(); // channel → Subscription
  #requests = new Map(); // ref → what waits for an answer
  #lastRef = 0;
  #listeners = new Set();
  #line;

  constructor(url, { since = null, times = {} }) {
    this.#since = since;
    this.#line = new Line(url, { ...TIMES, ...times }, {
      greet: () => this.#greet(),
      receive: (message) => this.#receive(message),
      fail: (ref, error) => this.#settle(ref, error),
      changed: (state) => this.#changed(state),
    });
  }

  /** @type {State} */
  get state() {
    return this.#line.state;
  }

  /** 'websocket', 'eventsource' or '' while there is no connection. */
  get transport() {
    return this.#line.transport;
  }

  /** The code and the reason of the last end: of a WebSocket, or 1006 or 1012. */
  get closed() {
    return this.#line.closed;
  }

  /** When the next attempt is made, as of Date.now(). */
  get retryAt() {
    return this.#line.retryAt;
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
      for (const message of requestsFor([found])) this.#line.change(message);
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
    this.#line.retry();
  }

  /** End it. Promises that wait are rejected. */
  close() {
    this.#line.end({ code: 1000, reason: '' });
  }

  #check() {
    if (this.state === 'closed') throw new ChannelsError('closed', 'these channels are closed');
  }

  #unsubscribe(subscription) {
    const { channel } = subscription;
    if (this.#subscriptions.get(channel) !== subscription) return;
    this.#subscriptions.delete(channel);
    this.#line.change({ unsubscribe: channel });
  }

  // The connection

  /** What a new connection begins with: all channels, each from where it is. */
  #greet() {
    const subscriptions = [...this.#subscriptions.values()];
    for (const one of subscriptions) {
      if (one.isConfirmed) one.cursor = this.#cursor;
      one.isConfirmed = false;
    }
    return requestsFor(subscriptions);
  }

  #changed(state) {
    for (const listener of [...this.#listeners]) call(listener, state, this);
    const waiting = [...this.#requests.keys()];
    if (state === 'online') {
      for (const ref of waiting) this.#ask(ref);
    } else if (state === 'closed') {
      const { code, reason } = this.closed;
      const error = new ChannelsError('closed', `closed with ${code} ${reason}`.trim());
      for (const ref of waiting) this.#settle(ref, error);
    }
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
      if (!subscription || subscription.isConfirmed) this.#cursor = message.id;
      if (subscription) subscription.cursor = message.id;
    }
    subscription?.deliver(message);
  }

  #confirm({ subscribed, id, recovered }) {
    for (const channel of [subscribed].flat()) {
      const subscription = this.#subscriptions.get(channel);
      if (!subscription) continue; // it was given up meanwhile
      subscription.recovered = recovered;
      if (!id) continue;
      subscription.isConfirmed = true;
      subscription.cursor = id;
    }
    if (id) this.#cursor = id;
  }

  #refused({ error, message, channel, ref }) {
    const reason = new ChannelsError(error, message, channel);
    const subscription = this.#subscriptions.get(channel);
    if (ref !== undefined) {
      this.#settle(ref, reason);
    } else if (error === 'unavailable') {
      this.#line.lose({ code: 1013, reason: message }); // all comes back, and asks again
    } else if (subscription) {
      this.#subscriptions.delete(channel);
      subscription.refuse(reason);
    } else {
      console.warn(`channels: ${error}: ${message}`);
    }
  }

  // Requests

  #request(message) {
    return new Promise((resolve, reject) => {
      this.#check();
      JSON.stringify(message); // now, where its error belongs
      const ref = ++this.#lastRef;
      const request = { message: { ...message, ref }, resolve, reject, sentAt: 0, failures: 0 };
      this.#requests.set(ref, request);
      this.#ask(ref);
    });
  }

  /** Send a request, if there is a connection; else when there is one. */
  #ask(ref) {
    const request = this.#requests.get(ref);
    if (!request || this.state !== 'online') return;
    const { message } = request;
    if (message.publish && request.sentAt && Date.now() - request.sentAt > KEY_LIFETIME) {
      const text = 'it is not known whether this was published, and its key is too old';
      this.#settle(ref, new ChannelsError('unknown', text, message.publish));
      return;
    }
    request.sentAt ||= Date.now();
    this.#line.ask(message);
  }

  #settle(ref, error, answer) {
    const request = this.#requests.get(ref);
    if (!request) return;
    if (error?.code === 'unavailable' || error?.code === 'rate') {
      request.failures++;
      const delay = 1_000 * (error.retryAfter ?? 0) + jitter(request.failures, TIMES.firstDelay);
      setTimeout(() => this.#ask(ref), delay);
      return;
    }
    this.#requests.delete(ref);
    if (error) request.reject(error);
    else request.resolve(answer);
  }
}

/** The messages that ask for subscriptions: those that can share a message do. */
function requestsFor(subscriptions) {
  const groups = new Map();
  for (const one of subscriptions) {
    one.begin();
    const { presence, last, token } = one.options;
    const details = { since: one.cursor || undefined, presence: presence || undefined };
    if (!one.cursor && last) details.last = last;
    const group = JSON.stringify(details);
    if (!groups.has(group)) groups.set(group, { subscribe: [], ...details, token: [] });
    groups.get(group).subscribe.push(one.channel);
    if (token) groups.get(group).token.push(token);
  }
  return [...groups.values()];
}

/** A channel of a page. */
class Subscription {
  #listeners = { message: new Set(), reset: new Set(), presence: new Set(), error: new Set() };
  #leave;
  #seen = null; // the number of the last message
  #isStale = true; // the members are of an earlier connection

  /** The cursor of its last message. */
  cursor;
  isConfirmed = false; // in this connection
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

/**
 * The connection: one transport at a time, opened again whenever it is lost.
 *
 * Its owner has `greet()`, what each transport begins with; `receive(message)`; `fail(ref, error)`
 * of a request; and `changed(state)`.
 */
class Line {
  state = 'connecting';
  closed = GONE;
  retryAt = 0;

  #url;
  #times;
  #owner;
  #transport = null;
  #Next = Socket; // the kind of the next transport
  #timer = 0; // the next attempt, or the next look at a quiet connection
  #openedAt = 0; // 0 until something has come
  #heardAt = 0;
  #isAsked = false; // a ping is out
  #isChanging = false; // the event stream will be opened with other channels
  #failures = 0; // in a row
  #webSocketFailures = 0; // in a row
  #trial = null; // a WebSocket that would take the place of the event stream
  #trialTimer = 0;

  constructor(url, times, owner) {
    this.#url = url;
    this.#times = times;
    this.#owner = owner;
    addEventListener('online', this.#online);
    addEventListener('offline', this.#offline);
    addEventListener('pagehide', this.#hide);
    addEventListener('pageshow', this.#show);
    document.addEventListener('visibilitychange', this.#visible);
    // What is subscribed in this turn goes out with the first message.
    this.#timer = setTimeout(() => this.#open(), 0);
  }

  get transport() {
    return this.state === 'online' ? this.#transport.name : '';
  }

  /** Tell the server of a subscription that has begun or ended. */
  change(message) {
    if (this.#transport?.name === 'websocket') {
      this.#transport.ask(message);
    } else if (this.#transport && !this.#isChanging) {
      // An event stream is opened anew with all channels, once for all changes of this turn.
      this.#isChanging = true;
      setTimeout(() => {
        this.#isChanging = false;
        if (this.#transport?.name === 'eventsource') this.#open();
      }, 0);
    }
  }

  /** Send a request. Its answer comes as a message, or to `fail`. */
  ask(message) {
    this.#transport.ask(message);
  }

  retry() {
    if (this.state === 'waiting' || this.state === 'offline') this.#open();
  }

  /** The connection is of no use any more: come back later, unless the server forbids it. */
  lose({ code, reason }) {
    const { name } = this.#transport ?? {};
    const wasOpen = this.#openedAt > 0;
    const isHealthy = wasOpen && Date.now() - this.#openedAt > this.#times.healthy;
    const isSentAway = code === 1001 || code === 1012 || code === 1013;
    this.#drop();
    this.closed = { code, reason };
    if (code === 1008 || (code >= 4400 && code < 4500)) {
      this.end(this.closed);
      return;
    }
    this.#failures = isHealthy ? 0 : this.#failures + 1;
    if (name === 'websocket' && !isSentAway) {
      this.#webSocketFailures = isHealthy ? 0 : this.#webSocketFailures + 1;
    }
    // Where WebSockets fail, both kinds take turns, until an event stream lives.
    const isStream = name === 'websocket' || wasOpen;
    this.#Next = isStream && this.#webSocketFailures >= WEBSOCKET_FAILURES ? EventStream : Socket;
    this.#wait(isSentAway ? this.#times.spread : this.#times.firstDelay);
  }

  /** End it for good. */
  end(closed) {
    if (this.state === 'closed') return;
    this.#drop();
    this.closed = closed;
    removeEventListener('online', this.#online);
    removeEventListener('offline', this.#offline);
    removeEventListener('pagehide', this.#hide);
    removeEventListener('pageshow', this.#show);
    document.removeEventListener('visibilitychange', this.#visible);
    this.#become('closed');
  }

  #become(state) {
    if (this.state === state) return;
    this.state = state;
    this.#owner.changed(state);
  }

  // From an attempt to the next

  #open() {
    this.#drop();
    this.#become('connecting');
    this.#openedAt = 0;
    const transport = new this.#Next(this.#url, this.#owner.greet);
    // One that was dropped may still report something.
    const ifPresent = (handle) => (value) => {
      if (this.#transport === transport) handle(value);
    };
    transport.onmessage = ifPresent((message) => {
      this.#hear();
      this.#owner.receive(message);
    });
    transport.onlife = ifPresent(() => this.#hear());
    transport.onfailure = ifPresent(({ ref, error }) => this.#owner.fail(ref, error));
    transport.onclose = ifPresent((end) => this.lose(end));
    this.#transport = transport;
    this.#timer = setTimeout(() => this.lose(GONE), this.#times.openTimeout);
  }

  #drop() {
    clearTimeout(this.#timer);
    clearTimeout(this.#trialTimer);
    this.#trial?.close();
    const transport = this.#transport;
    this.#transport = this.#trial = null;
    transport?.close();
  }

  #wait(shortest, state = navigator.onLine === false ? 'offline' : 'waiting') {
    const { longestDelay } = this.#times;
    // When it is offline the browser tells when it is not; but some browsers are wrong about it.
    const delay =
      state === 'offline' ? longestDelay : jitter(this.#failures, shortest, longestDelay);
    this.retryAt = Date.now() + delay;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#open(), delay);
    this.#become(state);
  }

  // While it is open

  /** Something has come. */
  #hear() {
    this.#heardAt = Date.now();
    this.#isAsked = false;
    if (this.state === 'online') return;
    this.#openedAt = Date.now();
    // From an event stream: the server may just have been away.
    if (this.#transport.name === 'eventsource') this.#tryWebSocket(this.#times.webSocketAgain / 20);
    this.#watch(this.#times.quiet);
    this.#become('online');
  }

  /** Look after a while whether the connection still lives. */
  #watch(delay) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      const quiet = Date.now() - this.#heardAt;
      if (this.#isAsked) this.lose(GONE);
      else if (quiet < this.#times.quiet) this.#watch(this.#times.quiet - quiet);
      else this.#test();
    }, delay);
  }

  /** It was quiet for long, or this computer may have another address. */
  #test() {
    if (this.#transport.name === 'eventsource') {
      this.#open(); // it cannot be asked
      return;
    }
    this.#isAsked = true;
    this.#transport.ask({ ping: 1 });
    this.#watch(this.#times.answerTimeout);
  }

  /** From time to time, look from an event stream whether a WebSocket passes by now. */
  #tryWebSocket(delay = this.#times.webSocketAgain) {
    clearTimeout(this.#trialTimer);
    this.#trialTimer = setTimeout(
      () => {
        const trial = (this.#trial = new Socket(this.#url, () => []));
        const giveUp = () => {
          clearTimeout(timer);
          trial.close();
          if (this.#trial === trial) this.#tryWebSocket();
        };
        const timer = setTimeout(giveUp, this.#times.openTimeout);
        trial.onclose = giveUp;
        trial.onmessage = () => {
          clearTimeout(timer);
          if (this.#trial !== trial) return;
          this.#webSocketFailures = 0;
          this.#Next = Socket;
          this.#open();
        };
      },
      delay * (0.5 + Math.random()),
    );
  }

  // What the browser tells

  #online = () => {
    if (this.state === 'waiting' || this.state === 'offline') {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#open(), Math.random() * 500);
    } else if (this.state === 'online') {
      this.#test();
    }
  };

  #offline = () => {
    this.#drop();
    this.#wait(0, 'offline');
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
    if (this.state === 'waiting') this.#online();
    else if (this.state === 'online' && Date.now() - this.#heardAt > this.#times.quiet) this.#test();
  };
}

// The transports. Each gets the function that makes the messages that it begins with, and calls
// `onmessage(message)`, `onlife()`, `onfailure({ref, error})` and `onclose({code, reason})`.

class Socket {
  name = 'websocket';
  #socket;

  constructor(url, greet) {
    const target = new URL(url);
    target.protocol = target.protocol.replace('http', 'ws');
    target.hash = '';
    this.#socket = new WebSocket(target.href);
    this.#socket.onopen = () => {
      this.ask({ ping: 1 }); // its answer says that messages pass
      for (const message of greet()) this.ask(message);
    };
    this.#socket.onmessage = ({ data }) => this.onmessage?.(JSON.parse(data));
    this.#socket.onclose = ({ code, reason }) => this.onclose?.({ code, reason });
  }

  /** Send a message; before it is open there is no need, for it begins with all that is wanted. */
  ask(message) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  close() {
    this.#socket.close();
  }
}

/** Server-sent events, read by fetch: an EventSource does not tell why it could not be opened. */
class EventStream {
  name = 'eventsource';
  #url;
  #abort = new AbortController();
  #asked = Promise.resolve();

  constructor(url, greet) {
    this.#url = url;
    this.#read(greet()).then(
      (end) => this.onclose?.(end),
      () => this.onclose?.(GONE),
    );
  }

  /** Read the stream; how it ended. */
  async #read(messages) {
    const response = await this.#post(messages, 'text/event-stream');
    if (response.status === 401 || response.status === 403) {
      const { message = '' } = await response.json().catch(() => ({}));
      return { code: 4000 + response.status, reason: message };
    }
    if (!response.ok) return GONE;
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let retries = 0; // the first begins the stream; a server that stops sends one more
    for (let rest = ''; ; ) {
      const { done, value } = await reader.read();
      if (done) return retries > 1 ? RESTART : GONE;
      const lines = (rest + value).split(/\r\n|\n/);
      rest = lines.pop();
      this.onlife?.();
      for (const line of lines) {
        if (line.startsWith('data:')) this.onmessage?.(JSON.parse(line.slice(5)));
        else if (line.startsWith('retry:')) retries++;
      }
    }
  }

  /** Send a request, when the one before has its answer: what is published keeps its order. */
  ask(message) {
    this.#asked = this.#asked.then(() => this.#ask(message));
  }

  async #ask(message) {
    try {
      const response = await this.#post(message, 'application/json');
      const answer = await response.json();
      if (!answer.error) {
        this.onmessage?.(answer);
        return;
      }
      const error = new ChannelsError(answer.error, answer.message, answer.channel);
      error.retryAfter = Number(response.headers.get('Retry-After'));
      this.onfailure?.({ ref: message.ref, error });
    } catch (cause) {
      if (this.#abort.signal.aborted) return; // it is sent again by the next transport
      const error = new ChannelsError('unavailable', String(cause));
      this.onfailure?.({ ref: message.ref, error });
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

  close() {
    this.#abort.abort();
  }
}

/**
 * A random delay in ms, at most `first`, and twice that with each further failure: full jitter, for
 * the browsers of a restarted server must not come back at the same time.
 */
function jitter(failures, first, longest = TIMES.longestDelay) {
  return Math.random() * Math.min(longest, first * 2 ** Math.max(0, failures - 1));
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
