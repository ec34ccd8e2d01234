// What reads of a disk may return. Each block keeps the versions that it may hold, oldest first: the
// last one that is known to be there, and what was written since without being acknowledged. Bytes
// are judged one by one, because what a crash leaves of a write may be torn.

export const blockBytes = 512;

interface Version {
  readonly content: Uint8Array;
  acknowledged: boolean;
  flushed: boolean;
}

interface Reading {
  readonly block: number;
  readonly allowed: Version[];
  readonly versionsThen: number;
}

export class BlockOracle {
  readonly problems: string[] = [];
  readonly #blocks: Version[][];
  #losses = 0;
  /** Grows with every version, so that a read knows whether its blocks changed meanwhile. */
  readonly #counts: number[];

  constructor(sizeBytes: number) {
    const blocks = sizeBytes / blockBytes;
    this.#blocks = Array.from({ length: blocks }, () => [
      { content: new Uint8Array(blockBytes), acknowledged: true, flushed: true },
    ]);
    this.#counts = Array.from({ length: blocks }, () => 0);
  }

  /** A write is issued; to be called back when it is acknowledged. */
  write(offset: number, bytes: Uint8Array, fua: boolean): () => void {
    const written: { version: Version; block: number }[] = [];
    for (let at = 0; at < bytes.length; at += blockBytes) {
      const block = (offset + at) / blockBytes;
      const content = bytes.slice(at, at + blockBytes);
      const version = { content, acknowledged: false, flushed: false };
      this.#versions(block).push(version);
      this.#counts[block] = (this.#counts[block] as number) + 1;
      written.push({ version, block });
    }
    const losses = this.#losses;
    return () => {
      if (losses !== this.#losses) return; // the guest that wrote it was reset meanwhile
      for (const { version, block } of written) {
        version.acknowledged = true;
        if (fua) this.#flushed(block, version);
      }
    };
  }

  flush(): () => void {
    const covered = this.#blocks.map((versions) => versions.findLast((one) => one.acknowledged));
    const losses = this.#losses;
    return () => {
      if (losses !== this.#losses) return;
      covered.forEach((version, block) => {
        if (version !== undefined) this.#flushed(block, version);
      });
    };
  }

  /** A read is issued; to be called back with what it returned. */
  read(offset: number, length: number, what: string): (bytes: Uint8Array) => void {
    const readings: Reading[] = [];
    for (let at = 0; at < length; at += blockBytes) {
      const block = (offset + at) / blockBytes;
      const versionsThen = this.#counts[block] as number;
      readings.push({ block, allowed: this.#possible(block), versionsThen });
    }
    const losses = this.#losses;
    return (bytes) => {
      readings.forEach((reading, index) => {
        const got = bytes.subarray(index * blockBytes, (index + 1) * blockBytes);
        this.#check(reading, got, losses, what);
      });
    };
  }

  /** What was acknowledged and not flushed may be gone: no copy has kept it. */
  writesLost(): void {
    this.#losses += 1;
    for (const versions of this.#blocks) {
      for (const version of versions) version.acknowledged = version.flushed;
    }
  }

  #check(reading: Reading, got: Uint8Array, losses: number, what: string): void {
    const { block, versionsThen } = reading;
    const now = losses === this.#losses ? this.#possible(block) : [...this.#versions(block)];
    const allowed = [...new Set([...reading.allowed, ...now])];
    const bad = got.findIndex(
      (byte, at) => !allowed.some((version) => version.content[at] === byte),
    );
    if (bad >= 0) {
      const values = allowed.map((one) => one.content[bad]).join(', ');
      this.problems.push(
        `${what}: block ${block} byte ${bad} is ${got[bad]}, not one of ${values}`,
      );
      return;
    }
    // What was once read stays, unless it was written meanwhile.
    if (versionsThen !== this.#counts[block] || losses !== this.#losses || now.length === 1) return;
    this.#versions(block).push({ content: got.slice(), acknowledged: true, flushed: false });
  }

  #possible(block: number): Version[] {
    const versions = this.#versions(block);
    return versions.slice(
      Math.max(
        0,
        versions.findLastIndex((one) => one.acknowledged),
      ),
    );
  }

  #flushed(block: number, version: Version): void {
    version.flushed = true;
    const versions = this.#versions(block);
    const index = versions.indexOf(version);
    if (index > 0) versions.splice(0, index);
  }

  #versions(block: number): Version[] {
    return this.#blocks[block] as Version[];
  }
}
