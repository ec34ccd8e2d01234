// What somebody who mistyped a name may have meant.

/** Comparing with more names than this takes longer than a guess is worth. */
const maxCandidates = 1000;

/** The first of the candidates with the fewest mistyped letters, if these are few; or null. */
export function nearest(text: string, candidates: Iterable<string>): string | null {
  let best: string | null = null;
  let fewest = Math.max(1, Math.floor(text.length / 3)) + 1;
  let compared = 0;
  for (const candidate of candidates) {
    compared += 1;
    if (compared > maxCandidates) break;
    if (Math.abs(candidate.length - text.length) >= fewest) continue;
    const edits = distance(text.toLowerCase(), candidate.toLowerCase());
    if (edits >= fewest) continue;
    best = candidate;
    fewest = edits;
  }
  return best;
}

/** `, did you mean h1?`, or nothing. */
export function hint(text: string, candidates: Iterable<string>): string {
  const meant = nearest(text, candidates);
  return meant === null ? '' : `, did you mean ${meant}?`;
}

/** Levenshtein's: letters to insert, remove or replace. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 0; i < a.length; i += 1) {
    const next = [i + 1];
    for (let j = 0; j < b.length; j += 1) {
      const replace = (row[j] as number) + Number(a[i] !== b[j]);
      next.push(Math.min(replace, (row[j + 1] as number) + 1, (next[j] as number) + 1));
    }
    row = next;
  }
  return row[b.length] as number;
}
