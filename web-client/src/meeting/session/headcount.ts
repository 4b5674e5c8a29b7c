/** How many are in the room whom nobody is told of by name: see docs/decisions/0004-crowds.md. */

/** In a room of fewer everybody is announced; the number that the server tells may then lag behind the list. */
const COUNTED_FROM = 80;

export function beyondTheList(total: number, listed: number): number {
  return total < COUNTED_FROM ? 0 : Math.max(0, total - listed);
}
