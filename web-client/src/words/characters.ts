/** A text as its characters (Unicode code points), which is how the server counts names too. */
export function charactersOf(text: string): string[] {
  return Array.from(text);
}
