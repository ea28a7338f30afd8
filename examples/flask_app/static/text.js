/**
 * How names, times and texts are shown. Everything becomes text nodes: what people write is never
 * read as HTML.
 */

const clock = new Intl.DateTimeFormat(undefined, { hour: 'numeric', minute: '2-digit' });
const weekday = new Intl.DateTimeFormat(undefined, {
  weekday: 'long',
  day: 'numeric',
  month: 'long',
});
const full = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'short' });
const LINK = /\bhttps?:\/\/[^\s<>"]*[^\s<>".,;:!?)\]}']/gi;
const PIECE = /\w{1,12}\W*|\W+/g; // of a link: a line may end between two of them
const HUES = 18; // so many colours can be told apart

/** Make an element: element('p', {className: 'note'}, 'text', child). */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** The same name has the same colour in every window. */
export function hue(name) {
  let hash = 2166136261;
  for (const character of name.toLowerCase()) {
    hash = Math.imul(hash ^ character.codePointAt(0), 16777619);
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x45d9f3b); // short names differ in few bits: spread them
  return (((hash ^ (hash >>> 16)) >>> 0) % HUES) * (360 / HUES);
}

export function initials(name) {
  const words = name
    .trim()
    .split(/[\s._-]+/)
    .filter(Boolean);
  const letters =
    words.length > 1
      ? words.slice(0, 2).map((word) => [...word][0])
      : [...(words[0] ?? '?')].slice(0, 2);
  return letters.join('').toUpperCase();
}

/** Paint a place that stands for a person. */
export function paintAvatar(place, name) {
  place.textContent = initials(name);
  place.style.setProperty('--hue', hue(name));
}

export function avatar(name) {
  const made = element('span', { className: 'avatar', ariaHidden: 'true' });
  paintAvatar(made, name);
  return made;
}

export const time = (at) => clock.format(at);
export const dateAndTime = (at) => full.format(at);

export function day(at, now = Date.now()) {
  const days = Math.round((midnight(now) - midnight(at)) / 86_400_000);
  return ['Today', 'Yesterday'][days] ?? weekday.format(at);
}

export const midnight = (at) => new Date(at).setHours(0, 0, 0, 0);

/** The text with its links, as a list for element(). */
export function withLinks(text) {
  const parts = [];
  let end = 0;
  for (const { 0: url, index } of text.matchAll(LINK)) {
    parts.push(
      text.slice(end, index),
      element('a', { href: url, target: '_blank', rel: 'noopener noreferrer' }, ...inPieces(url)),
    );
    end = index + url.length;
  }
  return [...parts, text.slice(end)];
}

/** A long word starts a line of its own, and leaves the line before it half empty. */
const inPieces = (url) => url.match(PIECE).flatMap((piece) => [piece, element('wbr')]);

/** "Ada", "Ada and Ben", "Ada, Ben and 3 others". */
export function list(names) {
  if (names.length > 3) return `${names.slice(0, 2).join(', ')} and ${names.length - 2} others`;
  return names.length < 2 ? names.join('') : `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`;
}

export const plural = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;
