/**
 * Where the pictures go. Pure: numbers in, rectangles out, in CSS pixels.
 * Every rectangle lies inside the given area, none overlap, and pictures keep a shape between 4:3 and 16:9.
 */

export interface Rect {
  x: number;
  y: number;
  width: number;
  height: number;
}

export type LayoutMode = 'grid' | 'speaker';

/** Most pictures on one page, whatever the screen: seven by seven. */
export const MAX_TILES = 49;
const GAP = 8;
const WIDE = 16 / 9;
const NARROW = 4 / 3;
/** Smallest picture in which a face and a name are still legible. */
const MIN_TILE_WIDTH = 132;
const MIN_TILE_HEIGHT = 84;
/** Share of the area that the row or column of small pictures takes in speaker view. */
const STRIP_SHARE = 0.2;
const STRIP_MIN = 92;
const STRIP_MAX = 220;

/** How many pictures one page holds. In speaker view the large one counts. */
export function capacity(width: number, height: number, mode: LayoutMode): number {
  if (mode === 'grid') {
    const columns = fitting(width, MIN_TILE_WIDTH);
    const rows = fitting(height, MIN_TILE_HEIGHT);
    return Math.min(MAX_TILES, Math.max(1, columns * rows));
  }
  const strip = stripOf(width, height);
  const small = strip.alongRight
    ? fitting(height, strip.thickness / WIDE)
    : fitting(width, (strip.thickness - GAP) * NARROW);
  return Math.min(MAX_TILES, 1 + Math.max(1, small));
}

/** The rectangles of `count` pictures, in order. In speaker view the first one is the large one. */
export function layout(count: number, width: number, height: number, mode: LayoutMode): Rect[] {
  if (count <= 0 || width <= 0 || height <= 0) return [];
  return mode === 'grid' || count === 1 ? grid(count, width, height) : speaker(count, width, height);
}

/** How many pages `count` pictures need; speaker view repeats the large one on each. */
export function pageCount(count: number, perPage: number, mode: LayoutMode): number {
  if (mode === 'grid') return Math.max(1, Math.ceil(count / perPage));
  return Math.max(1, Math.ceil((count - 1) / Math.max(1, perPage - 1)));
}

function fitting(length: number, piece: number): number {
  return Math.max(1, Math.floor((length + GAP) / (piece + GAP)));
}

/** A grid whose pictures are this close to the largest possible is preferred when it fills the area better. */
const NEARLY_AS_LARGE = 0.88;

interface Grid {
  columns: number;
  rows: number;
  tileWidth: number;
  tileHeight: number;
}

function grid(count: number, width: number, height: number): Rect[] {
  const { columns, rows, tileWidth, tileHeight } = bestGrid(count, width, height);
  const top = (height - rows * tileHeight - (rows - 1) * GAP) / 2;
  return Array.from({ length: count }, (_, index) => {
    const row = Math.floor(index / columns);
    const inRow = row === rows - 1 ? count - columns * (rows - 1) : columns;
    const left = (width - inRow * tileWidth - (inRow - 1) * GAP) / 2;
    return {
      x: left + (index % columns) * (tileWidth + GAP),
      y: top + row * (tileHeight + GAP),
      width: tileWidth,
      height: tileHeight,
    };
  });
}

function bestGrid(count: number, width: number, height: number): Grid {
  const grids = Array.from({ length: count }, (_, index): Grid => {
    const columns = index + 1;
    const rows = Math.ceil(count / columns);
    const [tileWidth, tileHeight] = shape((width - GAP * (columns - 1)) / columns, (height - GAP * (rows - 1)) / rows);
    return { columns, rows, tileWidth, tileHeight };
  });
  const areaOf = ({ tileWidth, tileHeight }: Grid): number => tileWidth * tileHeight;
  const largest = Math.max(...grids.map(areaOf));
  /** How much of the area's narrower-filled side is used: bands of empty ground look lost. */
  const fillOf = ({ columns, rows, tileWidth, tileHeight }: Grid): number =>
    Math.min((columns * (tileWidth + GAP) - GAP) / width, (rows * (tileHeight + GAP) - GAP) / height);
  return grids
    .filter((candidate) => areaOf(candidate) >= largest * NEARLY_AS_LARGE)
    .reduce((best, candidate) => (fillOf(candidate) > fillOf(best) ? candidate : best));
}

/** The largest size inside a cell whose shape is neither flatter than 16:9 nor taller than 4:3. */
function shape(cellWidth: number, cellHeight: number): [width: number, height: number] {
  const width = Math.max(0, Math.min(cellWidth, cellHeight * WIDE));
  return [width, Math.max(0, Math.min(cellHeight, width / NARROW))];
}

interface Strip {
  alongRight: boolean;
  thickness: number;
}

/** Beside the large picture on a wide area, below it on a tall one. */
function stripOf(width: number, height: number): Strip {
  const alongRight = width / height > 1.5;
  const across = alongRight ? width : height;
  const wanted = Math.min(STRIP_MAX, Math.max(STRIP_MIN, across * STRIP_SHARE));
  return { alongRight, thickness: Math.min(wanted, across * 0.4) };
}

function speaker(count: number, width: number, height: number): Rect[] {
  const { alongRight, thickness } = stripOf(width, height);
  const small = count - 1;
  if (alongRight) {
    const main: Rect = { x: 0, y: 0, width: Math.max(0, width - thickness - GAP), height };
    const tile = Math.max(0, Math.min(thickness / WIDE, (height - GAP * (small - 1)) / small));
    const top = (height - small * tile - (small - 1) * GAP) / 2;
    return [
      main,
      ...Array.from({ length: small }, (_, index) => ({
        x: width - thickness,
        y: top + index * (tile + GAP),
        width: thickness,
        height: tile,
      })),
    ];
  }
  const main: Rect = { x: 0, y: 0, width, height: Math.max(0, height - thickness - GAP) };
  const tile = Math.max(0, Math.min(thickness * WIDE, (width - GAP * (small - 1)) / small));
  const left = (width - small * tile - (small - 1) * GAP) / 2;
  return [
    main,
    ...Array.from({ length: small }, (_, index) => ({
      x: left + index * (tile + GAP),
      y: height - thickness,
      width: tile,
      height: thickness,
    })),
  ];
}
