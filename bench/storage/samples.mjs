// Latencies of one measurement, and the figures made of them.

export class Samples {
  #values = new Float64Array(1 << 16);
  count = 0;

  add(ms) {
    if (this.count === this.#values.length) {
      const larger = new Float64Array(this.count * 2);
      larger.set(this.#values);
      this.#values = larger;
    }
    this.#values[this.count] = ms;
    this.count += 1;
  }

  figures(elapsedMs) {
    const sorted = this.#values.subarray(0, this.count).sort();
    const at = (part) => sorted[Math.min(this.count - 1, Math.floor(this.count * part))] ?? NaN;
    return {
      count: this.count,
      perSecond: (this.count * 1000) / elapsedMs,
      p50: at(0.5),
      p99: at(0.99),
    };
  }
}

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
