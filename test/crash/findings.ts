// What a run has seen: how much was checked, and what should not have been.

export class Findings {
  readonly violations: string[] = [];
  readonly warnings = new Map<string, number>();
  readonly #counts = new Map<string, number>();

  violation(text: string): void {
    this.violations.push(text);
  }

  count(what: string, by = 1): void {
    this.#counts.set(what, (this.#counts.get(what) ?? 0) + by);
  }

  /** A warning is no violation; names and numbers aside, it is counted. */
  warned(message: string): void {
    const shape = message.replaceAll(/[0-9a-f]{8,}|\d+/g, 'N').slice(0, 110);
    this.warnings.set(shape, (this.warnings.get(shape) ?? 0) + 1);
  }

  of(what: string): number {
    return this.#counts.get(what) ?? 0;
  }

  /** By name, for people. */
  counts(): [string, number][] {
    return [...this.#counts].sort(([a], [b]) => a.localeCompare(b));
  }
}

export const sleep = (ms: number): Promise<void> =>
  new Promise((resolve) => void setTimeout(resolve, ms));

/** Polls; false where the time is over. The time is far beyond what is needed: it only ends a hang. */
export async function within(
  limitMs: number,
  condition: () => Promise<boolean> | boolean,
): Promise<boolean> {
  const until = performance.now() + limitMs;
  while (!(await condition())) {
    if (performance.now() > until) return false;
    await sleep(25);
  }
  return true;
}
