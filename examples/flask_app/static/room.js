/**
 * What this page knows about one channel: its messages, the ones that are still to be sent, and
 * how many have been seen.
 */

const LONGEST = 500;
const MOST_UNSENT = 50;

export class Room {
  messages = [];
  outbox = [];
  draft = '';
  count = 0; // messages in the channel, as counted by the server
  seen = null; // of these, how many the reader has seen; null before we know
  newAfter = null; // where the line "New" is drawn

  constructor(name) {
    this.name = name;
  }

  get unread() {
    return this.count - (this.seen ?? this.count);
  }

  get isFull() {
    return this.outbox.length >= MOST_UNSENT;
  }

  /** The server began anew: its counts do, and what we have from before has no number. */
  restart() {
    for (const message of this.messages) message.number = 0;
    this.count = 0;
    this.seen = this.newAfter = null;
  }

  /** A message from the server: a new one, or the echo of our own, which is then sent. */
  add(message, isOwn) {
    this.count = message.number;
    this.messages.push(message);
    if (this.messages.length > LONGEST) this.messages.shift();
    if (isOwn) this.outbox = this.outbox.filter(({ id }) => id !== message.id);
  }

  /** The history on joining, or on coming back: it may hold what we have, and what we missed. */
  merge(history, isOwn) {
    const keys = new Set(history.map(key));
    this.messages = [
      ...this.messages.filter((message) => !keys.has(key(message))),
      ...history,
    ].slice(-LONGEST);
    const sent = new Set(history.filter(isOwn).map(({ id }) => id));
    this.outbox = this.outbox.filter(({ id }) => !sent.has(id));
  }
}

export const key = ({ author, id }) => `${author}/${id}`;
