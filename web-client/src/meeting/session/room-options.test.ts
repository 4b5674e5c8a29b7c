import { describe, expect, it } from 'vitest';
import { DEFAULT_PREFERENCES } from '../../preferences/preferences';
import { readSwitches } from './address-switches';
import { codecFor, mediaServerUrl, roomOptions } from './room-options';

describe('the switches in the address', () => {
  it('are read, and nonsense in them is ignored', () => {
    expect(readSwitches('?codec=H264&v0=1')).toEqual({ codec: 'h264', twoConnections: true });
    expect(readSwitches('?codec=theora&v0=yes')).toEqual({ codec: null, twoConnections: false });
  });

  it('win over the settings', () => {
    expect(codecFor(readSwitches('?codec=av1'), { codec: 'vp9' })).toBe('av1');
    expect(codecFor(readSwitches(''), { codec: 'vp9' })).toBe('vp9');
    expect(codecFor(readSwitches(''), { codec: 'automatic' })).toBe('vp8');
  });

  it('choose between one connection and two', () => {
    expect(roomOptions(readSwitches(''), DEFAULT_PREFERENCES, () => true).singlePeerConnection).toBe(true);
    expect(roomOptions(readSwitches('?v0=1'), DEFAULT_PREFERENCES, () => true).singlePeerConnection).toBe(false);
  });
});

describe('the media server', () => {
  it('is where the page came from unless the join names another', () => {
    expect(mediaServerUrl('', 'https://example.gov.cn')).toBe('wss://example.gov.cn');
    expect(mediaServerUrl('ws://10.0.0.1:7880', 'https://example.gov.cn')).toBe('ws://10.0.0.1:7880');
    expect(mediaServerUrl('https://media.example.gov.cn', 'https://x')).toBe('wss://media.example.gov.cn');
  });
});
