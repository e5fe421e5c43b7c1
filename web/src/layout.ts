/** Where tiles stand: pure arithmetic in CSS pixels, so that pictures are as large as the window allows. */

export interface Box {
  x: number;
  y: number;
  width: number;
  height: number;
}

export type Role = "screen" | "person" | "self";

const ASPECT = 16 / 9;
const GAP = 8;
const INSET = 14; // of the corner picture, so that the speaking ring of the one behind it stays whole
const LEAST_WIDTH = 120; // below this nobody is recognised: the stage scrolls instead
const SHARE = 0.22; // of the stage, for people beside a screen and for oneself beside others
const [CORNER_LEAST, CORNER_MOST] = [104, 208];
const FEW = 2; // others, beside whom one's own picture may stand in the corner

const clamp = (value: number, least: number, most: number): number => Math.min(Math.max(value, least), most);

/** `count` equal tiles in rows, centred in the area, the last row too. Taller than the area if it must be. */
function rows(count: number, area: Box): Box[] {
  let columns = 1;
  let width = 0;
  for (let tried = 1; tried <= count; tried += 1) {
    const lines = Math.ceil(count / tried);
    const across = (area.width - GAP * (tried - 1)) / tried;
    const down = ((area.height - GAP * (lines - 1)) / lines) * ASPECT;
    const fits = Math.min(across, down);
    if (fits > width) [columns, width] = [tried, fits];
  }
  if (width < LEAST_WIDTH) {
    columns = clamp(Math.floor((area.width + GAP) / (LEAST_WIDTH + GAP)), 1, count);
    width = Math.min(LEAST_WIDTH, area.width);
  }
  const height = width / ASPECT;
  const lines = Math.ceil(count / columns);
  const top = area.y + Math.max(0, (area.height - lines * height - GAP * (lines - 1)) / 2);
  return Array.from({ length: count }, (_, index) => {
    const line = Math.floor(index / columns);
    const inLine = line === lines - 1 ? count - line * columns : columns;
    const left = area.x + (area.width - inLine * width - GAP * (inLine - 1)) / 2;
    return {
      x: left + (index - line * columns) * (width + GAP),
      y: top + line * (height + GAP),
      width,
      height,
    };
  });
}

function deal(tiles: Role[], chosen: (role: Role) => boolean, area: Box, boxes: Box[]): void {
  const indexes = tiles.flatMap((role, index) => (chosen(role) ? [index] : []));
  const placed = rows(indexes.length, area);
  indexes.forEach((index, order) => (boxes[index] = placed[order] as Box));
}

/** One box per tile, in the order given. A shared screen gets the stage and people a strip beside it. */
export function arrange(tiles: Role[], width: number, height: number): Box[] {
  const boxes: Box[] = [];
  const all: Box = { x: 0, y: 0, width, height };
  const others = tiles.filter((role) => role === "person").length;
  if (tiles.includes("screen") && others < tiles.length) {
    const isWide = width > height;
    const strip = clamp((isWide ? width : height) * SHARE, CORNER_LEAST, CORNER_MOST);
    const stage = isWide ? { ...all, width: width - strip - GAP } : { ...all, height: height - strip - GAP };
    const beside = isWide
      ? { ...all, x: width - strip, width: strip }
      : { ...all, y: height - strip, height: strip };
    deal(tiles, (role) => role === "screen", stage, boxes);
    deal(tiles, (role) => role !== "screen", beside, boxes);
  } else if (tiles.includes("self") && others > 0 && others <= FEW) {
    deal(tiles, (role) => role === "person", all, boxes);
    const corner = clamp(width * SHARE, CORNER_LEAST, CORNER_MOST);
    const tall = corner / ASPECT;
    boxes[tiles.indexOf("self")] = {
      x: width - corner - INSET,
      y: height - tall - INSET,
      width: corner,
      height: tall,
    };
  } else {
    deal(tiles, () => true, all, boxes);
  }
  return boxes;
}
