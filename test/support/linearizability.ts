// Is there an order of the operations, within their times, in which one copy of the object would have
// given the same answers? Search after Wing and Gong (1993), with Lowe's memory (2017) of the pairs
// of done operations and state that led nowhere.

export interface Operation<State> {
  /** For the message of a failed test. */
  readonly name: string;
  readonly invokedAt: number;
  /** Infinity where the outcome is not known: it may take effect at any later time, or never. */
  readonly returnedAt: number;
  /** The state after the operation, or null if its answer is impossible in this state. */
  readonly apply: (state: State) => State | null;
}

/** An order of the operations that explains their answers, or null where there is none. */
export function linearize<State extends string | number>(
  initial: State,
  operations: readonly Operation<State>[],
): Operation<State>[] | null {
  const sorted = [...operations].sort((a, b) => a.invokedAt - b.invokedAt);
  const visited = new Set<string>();
  const order: Operation<State>[] = [];

  function search(done: bigint, state: State): boolean {
    // Whatever comes next began before the first of the remaining answers was given.
    let firstReturn = Number.POSITIVE_INFINITY;
    for (const [index, operation] of sorted.entries()) {
      if ((done >> BigInt(index)) & 1n) continue;
      if (operation.invokedAt > firstReturn) break;
      firstReturn = Math.min(firstReturn, operation.returnedAt);
    }
    if (firstReturn === Number.POSITIVE_INFINITY) return true; // the rest needs not to happen
    const key = `${done.toString(36)} ${state}`;
    if (visited.has(key)) return false;
    visited.add(key);
    for (const [index, operation] of sorted.entries()) {
      if (operation.invokedAt > firstReturn) break;
      if ((done >> BigInt(index)) & 1n) continue;
      const next = operation.apply(state);
      if (next === null) continue;
      order.push(operation);
      if (search(done | (1n << BigInt(index)), next)) return true;
      order.pop();
    }
    return false;
  }

  return search(0n, initial) ? order : null;
}
