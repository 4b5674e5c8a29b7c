/** Three terraces on a hillside. */
export function Logo() {
  return (
    <svg className="logo" viewBox="0 0 32 32" aria-hidden="true" focusable="false">
      <path d="M5 12.500c5.500-4.500 11 2 22-3.500" />
      <path d="M5 19c6-4.500 11 2 22-3.500" />
      <path d="M5 25.500c6.500-4.500 11 2 22-3.500" />
    </svg>
  );
}
