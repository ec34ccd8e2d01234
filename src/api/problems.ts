// Turns a schema's complaints into a sentence for the person who wrote the value: which key, what
// stands there, what was expected. The expectation is the `description` of the schema, because
// `must match pattern "^[a-z..."` helps nobody.

import type { TSchema } from 'typebox';
import { Compile } from 'typebox/compile';

export interface Problem {
  /** Steps from the value's root to the key, for whoever knows where that stands in a file. */
  readonly path: readonly string[];
  readonly text: string;
}

export type Check = (value: unknown) => Problem[];

/** Compiles a schema to a check; no problems means that the value fits. */
export function compileCheck(schema: TSchema): Check {
  const compiled = Compile(schema);
  return (value) => {
    if (compiled.Check(value)) return [];
    const problems: Problem[] = [];
    for (const error of compiled.Errors(value) as readonly SchemaError[]) {
      // Inside a union every branch complains; the union's own error says it all.
      if (error.schemaPath.includes('/anyOf/') || error.keyword === 'boolean') continue;
      problems.push(...explain(schema, value, error));
    }
    // A mistyped key usually causes the missing one, so it is said first.
    return problems.sort((a, b) => Number(isUnknown(b)) - Number(isUnknown(a)));
  };
}

/** One line for at most three problems. */
export function problemsText(problems: readonly Problem[]): string {
  const shown = problems.slice(0, 3).map((problem) => problem.text);
  const more = problems.length - shown.length;
  return shown.join('; ') + (more > 0 ? `; and ${more} more` : '');
}

/** `disks[0].sizeBytes` for `['disks', '0', 'sizeBytes']`. */
export function formatPath(path: readonly string[]): string {
  return path.reduce(
    (text, step) =>
      /^\d+$/.test(step) ? `${text}[${step}]` : text === '' ? step : `${text}.${step}`,
    '',
  );
}

interface SchemaError {
  readonly keyword: string;
  readonly schemaPath: string;
  readonly instancePath: string;
  readonly params: Readonly<Record<string, unknown>>;
  readonly message: string;
}

type Node = Readonly<Record<string, unknown>>;

const isUnknown = (problem: Problem): boolean => problem.text.startsWith('unknown key');

function explain(schema: TSchema, value: unknown, error: SchemaError): Problem[] {
  const path = steps(error.instancePath);
  const node = schemaAt(schema as Node, path);
  if (error.keyword === 'additionalProperties') {
    const known = Object.keys((node?.['properties'] as Node | undefined) ?? {});
    const unknown = (error.params['additionalProperties'] as string[] | undefined) ?? [];
    return unknown.map((key) => ({
      path: [...path, key],
      text: `unknown key \`${formatPath([...path, key])}\`: expected ${
        known.length === 0 ? 'no keys' : `one of ${known.join(', ')}`
      }`,
    }));
  }
  if (error.keyword === 'required') {
    const missing = (error.params['requiredProperties'] as string[] | undefined) ?? [];
    return missing.map((key) => ({
      path: [...path, key],
      text: `missing key \`${formatPath([...path, key])}\`: expected ${expectation(
        schemaAt(schema as Node, [...path, key]),
        'a value',
      )}`,
    }));
  }
  const key = path.length === 0 ? 'the value' : `\`${formatPath(path)}\``;
  const expected = expectation(node, error.message.replace(/^must be /, ''));
  return [{ path, text: `${key} is ${show(valueAt(value, path))}: expected ${expected}` }];
}

function expectation(node: Node | null, otherwise: string): string {
  const description = node?.['description'];
  if (typeof description === 'string') return description;
  return node?.['type'] === 'object' ? 'keys and values' : otherwise;
}

function steps(pointer: string): string[] {
  return pointer
    .split('/')
    .slice(1)
    .map((step) => step.replaceAll('~1', '/').replaceAll('~0', '~'));
}

function schemaAt(schema: Node, path: readonly string[]): Node | null {
  let node: Node | undefined = schema;
  for (const step of path) {
    const properties = node?.['properties'] as Readonly<Record<string, Node>> | undefined;
    // A record has one schema for all its keys.
    const patterns = node?.['patternProperties'] as Readonly<Record<string, Node>> | undefined;
    node =
      properties?.[step] ??
      Object.values(patterns ?? {})[0] ??
      (node?.['items'] as Node | undefined);
  }
  return node ?? null;
}

function valueAt(value: unknown, path: readonly string[]): unknown {
  return path.reduce<unknown>(
    (inner, step) =>
      typeof inner === 'object' && inner !== null ? (inner as Node)[step] : undefined,
    value,
  );
}

function show(value: unknown): string {
  if (value === undefined) return 'missing';
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
