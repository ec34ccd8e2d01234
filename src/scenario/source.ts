// A scenario file as a tree of places. A place is a value of the file together with what an error
// must say of it: the line, and the key as people write it (`steps[3].partition`). Reading goes on
// behind a problem, because who corrects a file wants to see all of them at once.

import {
  type Alias,
  type Document,
  isAlias,
  isMap,
  isNode,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  parseDocument,
  visit,
  type YAMLError,
} from 'yaml';

export interface Problem {
  /** From 1. */
  readonly line: number;
  /** Where in the file, such as `steps[3].partition`; empty: the file as a whole. */
  readonly key: string;
  readonly message: string;
}

/** A file that is no scenario; the message has one line per problem, in the order of the file. */
export class ScenarioError extends Error {
  override readonly name = 'ScenarioError';
  readonly problems: readonly Problem[];

  constructor(problems: readonly Problem[]) {
    const sorted = problems.toSorted((a, b) => a.line - b.line);
    const text = ({ line, key, message }: Problem): string =>
      `line ${line}: ${key === '' ? '' : `${key}: `}${message}`;
    super(sorted.map(text).join('\n'));
    this.problems = sorted;
  }
}

/** What a plain value of YAML's core schema can be. */
type Scalar = string | number | boolean | null;

/** What all places of one file share. */
interface SourceFile {
  readonly lines: LineCounter;
  /** Alias -> the node that it repeats. */
  readonly targets: ReadonlyMap<unknown, Node>;
  readonly problems: Problem[];
}

/** The outermost place; throws ScenarioError for what is not one YAML document. */
export function parseSource(text: string): Place {
  const lines = new LineCounter();
  try {
    // Keys that stand twice are found while reading, where they can be named.
    const options = { lineCounter: lines, prettyErrors: false, uniqueKeys: false };
    const document = parseDocument(text, options);
    const problems = [...document.errors, ...document.warnings].map((error) => ({
      line: lines.linePos(error.pos[0]).line,
      key: '',
      message: yamlProblem(error),
    }));
    if (problems.length > 0) throw new ScenarioError(problems);
    const targets = findTargets(document, lines);
    const root = document.contents;
    if (root === null || (isScalar(root) && root.value === null)) {
      throw new ScenarioError([{ line: 1, key: '', message: 'the file is empty' }]);
    }
    return new Place({ lines, targets, problems: [] }, root, '', root.range?.[0] ?? 0);
  } catch (error) {
    // The YAML package goes down the tree by recursion.
    if (!(error instanceof RangeError)) throw error;
    throw new ScenarioError([{ line: 1, key: '', message: 'no valid YAML: nested too deeply' }]);
  }
}

function yamlProblem({ code, message }: YAMLError): string {
  if (code === 'MULTIPLE_DOCS')
    return 'a second YAML document begins here, and one is all there may be';
  // The package gives the message of the error that it ran into.
  return `no valid YAML: ${code === 'RESOURCE_EXHAUSTION' ? 'nested too deeply' : message}`;
}

/** Refuses aliases that stand for nothing, or for far more than was written ("billion laughs"). */
function findTargets(document: Document, lines: LineCounter): SourceFile['targets'] {
  const anchors = new Map<string, Node>();
  const targets = new Map<unknown, Node>();
  const aliases: Alias[] = [];
  visit(document, {
    Node: (_key, node) => {
      if (!isAlias(node)) {
        if (node.anchor !== undefined) anchors.set(node.anchor, node);
        return;
      }
      aliases.push(node);
      const target = anchors.get(node.source);
      if (target !== undefined) targets.set(node, target);
    },
  });
  const problemAt = (alias: Alias, message: string): Problem => {
    return { line: lines.linePos(alias.range?.[0] ?? 0).line, key: '', message };
  };
  const lost = aliases.filter((alias) => !targets.has(alias));
  if (lost.length > 0) {
    const text = ({ source }: Alias) =>
      `no valid YAML: *${source} repeats nothing: no &${source} is above`;
    throw new ScenarioError(lost.map((alias) => problemAt(alias, text(alias))));
  }
  const [first] = aliases;
  if (first === undefined) return targets;
  try {
    document.toJS({ mapAsMap: true, maxAliasCount: 100 });
  } catch (error) {
    if (!(error instanceof ReferenceError)) throw error;
    const message =
      'too many aliases: an anchor may be repeated 100 times, anchors in anchors multiply';
    throw new ScenarioError([problemAt(first, message)]);
  }
  return targets;
}

export class Place {
  readonly key: string;
  readonly #file: SourceFile;
  readonly #node: unknown;
  readonly #offset: number;

  constructor(file: SourceFile, node: unknown, key: string, offset: number) {
    this.key = key;
    this.#file = file;
    this.#node = file.targets.get(node) ?? node;
    this.#offset = offset;
  }

  /** So far, of the whole file. */
  get problems(): readonly Problem[] {
    return this.#file.problems;
  }

  /** Gives undefined, which is what a reader of a bad value returns. */
  report(message: string): undefined {
    const { line } = this.#file.lines.linePos(this.#offset);
    this.#file.problems.push({ line, key: this.key, message });
    return undefined;
  }

  expected(what: string): undefined {
    return this.report(`expected ${what}, found ${this.describe()}`);
  }

  describe(): string {
    if (isMap(this.#node)) return 'a map';
    if (isSeq(this.#node)) return 'a list';
    const value = this.scalar();
    if (value === null || value === undefined) return 'nothing';
    const text = typeof value === 'string' ? JSON.stringify(value) : `${value}`;
    return text.length <= 80 ? text : `${text.slice(0, 80)}...`;
  }

  /** Undefined: it is a map or a list. */
  scalar(): Scalar | undefined {
    if (isScalar(this.#node)) return this.#node.value as Scalar;
    return this.#node === null ? null : undefined;
  }

  get isMap(): boolean {
    return isMap(this.#node);
  }

  /** The entries of a list, or null if this is none. */
  items(): Place[] | null {
    if (!isSeq(this.#node)) return null;
    return this.#node.items.map((item, index) =>
      this.#inner(item, `${this.key}[${index}]`, isNode(item) ? item.range?.[0] : undefined),
    );
  }

  /** The keys of a map that are text; reports nothing. */
  keys(): string[] {
    return this.#pairs().flatMap(([key]) => (typeof key === 'string' ? [key] : []));
  }

  /** The values of a map in the order of the file; reports keys that are no text or stand twice. */
  values(): ReadonlyMap<string, Place> {
    const found = new Map<string, Place>();
    for (const [key, place] of this.#pairs()) {
      if (typeof key !== 'string') this.#keyProblem(place, key);
      else if (found.has(key)) place.report('this key stands here twice');
      else found.set(key, place);
    }
    return found;
  }

  /** The value of a key of this map; if it is missing, a place to report that. */
  child(key: string): Place {
    const pair = this.#pairs().find(([name]) => name === key);
    return pair?.[1] ?? new Place(this.#file, null, this.#path(key), this.#offset);
  }

  #pairs(): [key: unknown, value: Place][] {
    if (!isMap(this.#node)) return [];
    return this.#node.items.map(({ key, value }) => {
      const name: unknown = isScalar(key) ? key.value : key;
      const path = typeof name === 'string' ? this.#path(name) : this.key;
      return [name, this.#inner(value, path, isNode(key) ? key.range?.[0] : undefined)];
    });
  }

  #keyProblem(place: Place, key: unknown): void {
    const found = typeof key === 'number' || typeof key === 'boolean' ? `${key}` : 'something else';
    place.report(`keys are text, found ${found}`);
  }

  #path(key: string): string {
    return this.key === '' ? key : `${this.key}.${key}`;
  }

  #inner(node: unknown, key: string, offset: number | undefined): Place {
    return new Place(this.#file, node, key, offset ?? this.#offset);
  }
}
