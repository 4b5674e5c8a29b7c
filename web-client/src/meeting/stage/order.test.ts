import { describe, expect, it } from 'vitest';
import type { ParticipantView } from '../session/participant-view';
import { readHand } from '../session/participant-view';
import { chooseSpeaker, orderPeople, orderRoster } from './order';

function person(identity: string, change: Partial<ParticipantView> = {}): ParticipantView {
  return {
    identity,
    name: identity,
    isSelf: false,
    isSpeaking: false,
    lastSpokeAt: 0,
    quality: 'good',
    microphoneOn: true,
    camera: null,
    screen: null,
    isCameraPaused: false,
    isScreenPaused: false,
    isSharing: false,
    handAt: null,
    joinedAt: 0,
    ...change,
  };
}

describe('the order of people', () => {
  it('stays as it is while nobody new speaks', () => {
    const before = ['a', 'b', 'c'];
    expect(orderPeople(before, [person('c'), person('a'), person('b')], 2)).toBe(before);
  });

  it('adds who came at the end, and gives who left and comes back the same place', () => {
    const without = orderPeople(['a', 'b'], [person('b'), person('c')], 9);
    expect(without).toEqual(['a', 'b', 'c']);
    expect(orderPeople(without, [person('c'), person('b'), person('a')], 9)).toBe(without);
  });

  it('does not keep places for ever', () => {
    const gone = Array.from({ length: 60 }, (_, index) => `gone-${index}`);
    const order = orderPeople(gone, [person('a')], 9);
    expect(order).toHaveLength(51);
    expect(order[0]).toBe('gone-10');
    expect(order.at(-1)).toBe('a');
  });

  it('counts the first page by who is there', () => {
    const people = [person('a'), person('b'), person('c', { isSpeaking: true })];
    expect(orderPeople(['gone', 'a', 'b', 'c'], people, 2)).toEqual(['gone', 'c', 'b', 'a']);
  });

  it('brings a speaker to the first page in exchange for the one silent longest', () => {
    const people = [person('a', { isSelf: true }), person('b', { lastSpokeAt: 9 }), person('c', { lastSpokeAt: 3 }), person('d'), person('e', { isSpeaking: true })];
    expect(orderPeople(['a', 'b', 'c', 'd', 'e'], people, 3)).toEqual(['a', 'b', 'e', 'd', 'c']);
  });

  it('displaces neither oneself nor another speaker', () => {
    const people = [person('a', { isSelf: true }), person('b', { isSpeaking: true }), person('c', { isSpeaking: true })];
    expect(orderPeople(['a', 'b', 'c'], people, 2)).toEqual(['a', 'b', 'c']);
  });
});

describe('the large picture', () => {
  it('is who speaks, and stays until another speaks', () => {
    const quiet = [person('me', { isSelf: true }), person('a'), person('b')];
    expect(chooseSpeaker(null, quiet)).toBe('a');
    expect(chooseSpeaker('b', quiet)).toBe('b');
    expect(chooseSpeaker('b', [person('a', { isSpeaking: true }), person('b')])).toBe('a');
    expect(chooseSpeaker('b', [person('a', { isSpeaking: true }), person('b', { isSpeaking: true })])).toBe('b');
  });

  it('is oneself only when alone', () => {
    expect(chooseSpeaker(null, [person('me', { isSelf: true })])).toBe('me');
    expect(chooseSpeaker(null, [])).toBeNull();
  });
});

describe('the list of people', () => {
  it('has raised hands first, in the order they went up', () => {
    const list = orderRoster([person('a'), person('b', { handAt: 5 }), person('c', { handAt: 2 }), person('z', { isSelf: true })], 'zh-CN');
    expect(list.map((entry) => entry.identity)).toEqual(['c', 'b', 'z', 'a']);
  });

  it('believes only times as hands', () => {
    expect(readHand('1732440000000')).toBe(1732440000000);
    for (const nonsense of [undefined, '', '0', '-1', 'up', 'Infinity']) expect(readHand(nonsense)).toBeNull();
  });
});
