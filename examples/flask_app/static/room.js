/**
 * What this page knows about one room: its messages, the ones that are still to be sent, and up to
 * when they have been seen. Times are the server's, in milliseconds.
 */

const LONGEST = 500;
const MOST_UNSENT = 50;

export class Room {
  messages = [];
  outbox = [];
  draft = '';
  seen = 0; // the reader has seen the messages up to this time
  newAfter = null; // where the line "New" is drawn

  constructor(name) {
    this.name = name;
  }

  get unread() {
    return this.messages.filter(({ time }) => time > this.seen).length;
  }

  /** The time of the last message; or up to when was seen, if that is later. */
  get latest() {
    return Math.max(this.seen, this.messages.at(-1)?.time ?? 0);
  }

  get isFull() {
    return this.outbox.length >= MOST_UNSENT;
  }

  /** A message that came: a new one, one that we have, or the echo of our own, which is then sent. */
  add(message, isOwn) {
    if (isOwn) this.outbox = this.outbox.filter(({ id }) => id !== message.id);
    if (this.messages.some((other) => key(other) === key(message))) return;
    this.messages.push(message);
    if (this.messages.length > LONGEST) this.messages.shift();
  }
}

export const key = ({ person, id }) => `${person}/${id}`;
