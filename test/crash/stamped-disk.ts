// What the blocks of one disk may hold. Each write gives its blocks a number, and a block is full of
// bytes that follow from disk, block and number, so that whatever is read tells which write it comes
// from: none that was acknowledged may be missing, and none may be there twice, torn, or elsewhere.
//
// Killing a process loses nothing that it has given to the kernel, so a write counts from its
// acknowledgement on; that it was flushed as well is remembered to say how bad its loss is. No two
// requests for the same block may be under way at once.

export const blockBytes = 4096;
const magic = 0x486f6c64;
const empty = Buffer.alloc(blockBytes);

interface Version {
  /** 0: never written. */
  readonly number: number;
  readonly isZero: boolean;
}

interface Block {
  /** What it may hold: the last that is known to be there, then those whose outcome is unknown. */
  versions: Version[];
  flushed: number;
}

export class StampedDisk {
  readonly blocks: number;
  readonly #disk: number;
  readonly #known: Block[];
  /** Acknowledged and not flushed. */
  readonly #unflushed = new Set<number>();
  #last = 0;

  constructor(disk: number, sizeBytes: number) {
    this.#disk = disk;
    this.blocks = sizeBytes / blockBytes;
    this.#known = Array.from({ length: this.blocks }, () => ({
      versions: [{ number: 0, isZero: true }],
      flushed: 0,
    }));
  }

  /** What to write; `acknowledged` is to be called when that is so, and never otherwise. */
  write(first: number, count: number): { bytes: Buffer; acknowledged: (fua: boolean) => void } {
    this.#last += 1;
    const number = this.#last;
    const bytes = Buffer.alloc(count * blockBytes);
    for (let index = 0; index < count; index += 1) {
      const target = bytes.subarray(index * blockBytes, (index + 1) * blockBytes);
      fill(target, this.#disk, first + index, number);
    }
    return { bytes, acknowledged: this.#issue(first, count, { number, isZero: false }) };
  }

  zero(first: number, count: number): (fua: boolean) => void {
    this.#last += 1;
    return this.#issue(first, count, { number: this.#last, isZero: true });
  }

  #issue(first: number, count: number, version: Version): (fua: boolean) => void {
    for (let block = first; block < first + count; block += 1)
      this.#at(block).versions.push(version);
    return (fua) => {
      for (let block = first; block < first + count; block += 1) {
        const known = this.#at(block);
        known.versions = [version];
        if (fua) known.flushed = version.number;
        else this.#unflushed.add(block);
      }
    };
  }

  /** To be called when a flush that is issued now is acknowledged. */
  flush(): () => void {
    const covered = [...this.#unflushed].map((block) => ({
      block,
      number: this.#at(block).versions[0]?.number ?? 0,
    }));
    this.#unflushed.clear();
    return () => {
      for (const { block, number } of covered) {
        const known = this.#at(block);
        known.flushed = Math.max(known.flushed, number);
      }
    };
  }

  /** What is wrong with bytes that were read; from then on the blocks hold what was seen. */
  check(first: number, bytes: Buffer): string[] {
    const problems: string[] = [];
    for (let at = 0; at < bytes.length; at += blockBytes) {
      const block = first + at / blockBytes;
      const known = this.#at(block);
      const found = this.#read(block, bytes.subarray(at, at + blockBytes));
      const version = known.versions.findLast((one) =>
        typeof found === 'number' ? one.number === found : found === 'zeros' && one.isZero,
      );
      if (version === undefined) problems.push(this.#complaint(block, known, found));
      else known.versions = [version];
    }
    return problems;
  }

  #complaint(block: number, { versions, flushed }: Block, found: number | string): string {
    const [last, ...unknown] = versions.map(
      (one) => `${one.number}${one.isZero ? ' (zeros)' : ''}`,
    );
    const lost = typeof found === 'number' && found >= flushed ? 'acknowledged' : 'flushed';
    const also = unknown.length === 0 ? '' : `, or perhaps ${unknown.join(', ')}`;
    return `block ${block} holds ${found}, not write ${last}${also}: a ${lost} write is lost (flushed: ${flushed})`;
  }

  /** The number of the write that the bytes come from, or what they are instead. */
  #read(block: number, bytes: Buffer): number | string {
    if (bytes.equals(empty)) return 'zeros';
    if (bytes.readUInt32LE(0) !== magic) return 'bytes that nobody wrote';
    const [disk, of, number] = [4, 8, 12].map((at) => bytes.readUInt32LE(at));
    if (disk !== this.#disk || of !== block) return `block ${of} of disk ${disk}`;
    const whole = Buffer.alloc(blockBytes);
    fill(whole, this.#disk, block, number as number);
    return whole.equals(bytes) ? (number as number) : `a torn write ${number}`;
  }

  #at(block: number): Block {
    return this.#known[block] as Block;
  }
}

function fill(target: Buffer, disk: number, block: number, number: number): void {
  const words = new Uint32Array(target.length / 4);
  words.set([magic, disk, block, number]);
  let state = (Math.imul(number, 0x9e3779b1) ^ Math.imul(block + 1, 0x85ebca6b) ^ disk) | 1;
  for (let word = 4; word < words.length; word += 1) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[word] = state;
  }
  target.set(new Uint8Array(words.buffer));
}
