/**
 * The picture of the last two minutes: each message is a block in the colour of its author, set
 * on the blocks of the same two seconds, and all of it moves to the left with time. Below the
 * line, a disc is somebody who joins, and a ring somebody who leaves.
 *
 * Who asked for reduced motion gets a still picture that is drawn anew every two seconds, and when
 * something happens.
 */

import { hue } from './text.js';

export const SPAN = 120_000;
const BUCKET = 2_000;
const MOST = 4_000; // entries in the picture
const LANE = 34; // the height below the line
const TALLEST = 18; // of a block
const FALL = 450; // how long a new block takes to land

const reduced = matchMedia('(prefers-reduced-motion: reduce)');
const dark = matchMedia('(prefers-color-scheme: dark)');

export class Plot {
  #canvas;
  #draw2d;
  #colours = {};
  #entries = []; // no older than the picture
  #unit = TALLEST; // the height of a block, which follows the fullest two seconds
  #scheduled = false;

  /** `now` tells the server's time. */
  constructor(canvas, now) {
    this.#canvas = canvas;
    this.#draw2d = canvas.getContext('2d');
    this.now = now;
    new ResizeObserver(() => this.#fit()).observe(canvas);
    dark.addEventListener('change', () => this.#fit());
    reduced.addEventListener('change', () => this.#schedule());
  }

  add(entries) {
    const landsAt = performance.now() + FALL;
    this.#entries.push(...entries.map((entry) => ({ ...entry, landsAt })));
    this.#forget();
    this.#paint();
    this.#schedule();
  }

  get messages() {
    return this.#entries.filter(({ type }) => type === 'message').length;
  }

  /** The names in the picture, the busiest first. */
  get names() {
    const counts = new Map();
    for (const { name } of this.#entries) counts.set(name, (counts.get(name) ?? 0) + 1);
    return [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a));
  }

  get isEmpty() {
    return this.#entries.length === 0;
  }

  #forget() {
    const oldest = this.now() - SPAN - BUCKET;
    this.#entries = this.#entries.filter(({ time }) => time > oldest).slice(-MOST);
  }

  #fit() {
    const { clientWidth, clientHeight } = this.#canvas;
    this.#canvas.width = clientWidth * devicePixelRatio;
    this.#canvas.height = clientHeight * devicePixelRatio;
    const style = getComputedStyle(this.#canvas);
    const value = (name) => style.getPropertyValue(name).trim();
    this.#colours = {
      line: value('--line'),
      person: `${value('--person-light')} ${value('--person-strength')}`,
    };
    this.#paint();
    this.#schedule();
  }

  /** Once more, for as long as there is something to be seen. */
  #schedule() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    const again = () => {
      this.#scheduled = false;
      this.#forget();
      this.#paint();
      if (!this.isEmpty) this.#schedule();
    };
    if (reduced.matches) setTimeout(again, BUCKET);
    else requestAnimationFrame(again);
  }

  #paint() {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const draw = this.#draw2d;
    draw.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    draw.clearRect(0, 0, width, height);
    const ground = height - LANE;
    this.#paintGrid(width, ground);
    const stacks = this.#stacks();
    this.#follow(Math.max(0, ...[...stacks.values()].map((stack) => stack.length)), ground);
    const step = (BUCKET / SPAN) * width;
    for (const [bucket, stack] of stacks) {
      const left = this.#x(bucket * BUCKET, width);
      stack.forEach((entry, level) => this.#paintBlock(entry, left, step, ground, level));
    }
    for (const entry of this.#entries) {
      if (entry.type !== 'message') this.#paintDisc(entry, this.#x(entry.time, width), ground);
    }
  }

  /** The right edge is the end of the present two seconds, so that nothing lands outside. */
  #x(time, width) {
    const step = reduced.matches ? BUCKET : 1;
    const now = Math.ceil(this.now() / step) * step;
    const end = now + (reduced.matches ? 0 : BUCKET);
    return width * (1 - (end - time) / SPAN);
  }

  #stacks() {
    const stacks = new Map();
    for (const entry of this.#entries) {
      if (entry.type !== 'message') continue;
      const bucket = Math.floor(entry.time / BUCKET);
      if (!stacks.has(bucket)) stacks.set(bucket, []);
      stacks.get(bucket).push(entry);
    }
    return stacks;
  }

  #follow(fullest, ground) {
    const wanted = Math.min(TALLEST, (ground - 8) / Math.max(1, fullest));
    this.#unit += (wanted - this.#unit) * (reduced.matches || wanted < this.#unit ? 1 : 0.08);
  }

  #paintGrid(width, ground) {
    const draw = this.#draw2d;
    draw.fillStyle = this.#colours.line;
    draw.fillRect(0, ground, width, 1);
    for (const part of [0.25, 0.5, 0.75]) draw.fillRect(Math.round(width * part), 0, 1, ground);
  }

  #paintBlock(entry, left, step, ground, level) {
    const draw = this.#draw2d;
    const gap = this.#unit > 4 ? 1.5 : 0;
    const side = Math.min(2, step * 0.15);
    const fall = this.#fallen(entry);
    const top = ground - (level + 1) * this.#unit - (1 - fall) * Math.min(60, ground / 2);
    draw.globalAlpha = fall;
    draw.fillStyle = this.#colour(entry);
    draw.beginPath();
    draw.roundRect(left + side, top + gap, step - 2 * side, this.#unit - gap, gap * 2);
    draw.fill();
    draw.globalAlpha = 1;
  }

  #paintDisc(entry, x, ground) {
    const draw = this.#draw2d;
    draw.globalAlpha = this.#fallen(entry);
    draw.fillStyle = draw.strokeStyle = this.#colour(entry);
    draw.lineWidth = 2;
    draw.beginPath();
    draw.arc(x, ground + LANE / 2 + 1, 6, 0, 2 * Math.PI);
    if (entry.type === 'join') draw.fill();
    draw.stroke();
    draw.globalAlpha = 1;
  }

  #colour({ name }) {
    return `oklch(${this.#colours.person} ${hue(name)})`;
  }

  /** From 0, just arrived, to 1, landed. */
  #fallen({ landsAt }) {
    const left = reduced.matches ? 0 : Math.max(0, landsAt - performance.now()) / FALL;
    return 1 - left ** 3;
  }
}
