import { useEffect, useRef, type RefObject } from 'react';

/** A new page begins, for who hears it too, at its heading. */
export function useHeading(): RefObject<HTMLHeadingElement | null> {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => heading.current?.focus(), []);
  return heading;
}
