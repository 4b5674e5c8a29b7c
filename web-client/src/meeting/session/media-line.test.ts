import { describe, expect, it } from 'vitest';
import { countsOf, Movement } from './media-line';

const pair = (id: string, bytesReceived: number, responsesReceived?: number) =>
  ({ id, type: 'candidate-pair', bytesReceived, ...(responsesReceived === undefined ? {} : { responsesReceived }) });

describe('the counters of a path', () => {
  it('count answers to checks too, so that a meeting in which nobody speaks is alive', () => {
    expect(countsOf([pair('a', 10, 2), { id: 'x', type: 'transport', bytesReceived: 99 }])).toEqual(new Map([['a', 12]]));
  });

  it('say nothing where answers are not counted', () => {
    expect(countsOf([pair('a', 10)]).size).toBe(0);
  });
});

describe('movement', () => {
  it('is when a counter changed last', () => {
    const movement = new Movement();
    expect(movement.look(new Map([['a', 1]]), 1000)).toBe(1000);
    expect(movement.look(new Map([['a', 1]]), 2000)).toBe(1000);
    expect(movement.look(new Map([['a', 2]]), 3000)).toBe(3000);
  });

  it('is seen on whichever path is taken', () => {
    const movement = new Movement();
    movement.look(new Map([['a', 1], ['b', 1]]), 1000);
    expect(movement.look(new Map([['a', 1], ['b', 2]]), 2000)).toBe(2000);
    expect(movement.look(new Map([['c', 7]]), 5000)).toBe(5000);
  });

  it('is not known where nothing is counted', () => {
    expect(new Movement().look(new Map(), 1000)).toBeNull();
  });
});
