// A VM as a YAML file (`vm create -f vm.yaml`). Sizes are written as people write them; an error names
// the key and the line, because files are edited and lines are what editors show.

import { type Static, type TSchema, Type } from 'typebox';
import { isMap, isNode, isPair, isScalar, LineCounter, type Node, parseDocument } from 'yaml';
import { compileCheck, formatPath, type Problem } from '../api/problems.ts';
import {
  Boot,
  Cpus,
  DiskPath,
  Format,
  HostNames,
  haRules,
  Name,
  ObjectHosts,
  Policy,
  Protected,
  type VmRequestBody,
  VmRequestSchema,
} from '../api/schemas.ts';
import { parseSize, sizeSyntax } from '../model/quantities.ts';
import { UsageError } from './failure.ts';

const Size = Type.Union([Type.String(), Type.Integer()], { description: sizeSyntax });

const closed = <Properties extends Record<string, TSchema>>(properties: Properties) =>
  Type.Object(properties, { additionalProperties: false });

const VmFileSchema = closed({
  name: Name,
  cpus: Type.Optional(Cpus),
  memory: Size,
  disks: Type.Array(
    closed({
      size: Type.Optional(Size),
      policy: Type.Optional(Policy),
      required: Type.Optional(Protected),
      path: Type.Optional(DiskPath),
      format: Type.Optional(Format),
    }),
    {
      description: 'a list of disks, each with a `size` or a `path`',
    },
  ),
  policy: Type.Optional(Policy),
  boot: Type.Optional(Boot),
  protected: Type.Optional(Protected),
  ...haRules,
  hosts: Type.Optional(HostNames),
  objectHosts: Type.Optional(ObjectHosts),
});

const checkFile = compileCheck(VmFileSchema);
const checkRequest = compileCheck(VmRequestSchema);

/** The request that stands in the text of `file`; `name`, if given, replaces the name in it. */
export function readVmFile(text: string, file: string, name: string | undefined): VmRequestBody {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const broken = document.errors[0];
  if (broken !== undefined) {
    throw wrong(file, lines.linePos(broken.pos[0]).line, `no valid YAML: ${broken.message}`);
  }
  const lineOf = (path: readonly string[]): number => {
    const offset = offsetOf(document.contents, path);
    return offset === null ? 1 : lines.linePos(offset).line;
  };
  const content: unknown = document.toJS();
  const value =
    name !== undefined && typeof content === 'object' && content !== null
      ? { ...content, name }
      : content;
  failOn(checkFile(value), (path) => path);
  const spec = value as Static<typeof VmFileSchema>;

  const sizeOf = (size: string | number, path: readonly string[]): number => {
    const bytes = parseSize(size);
    if (bytes !== null) return bytes;
    const text = `\`${formatPath(path)}\` is ${JSON.stringify(size)}: expected ${sizeSyntax}`;
    throw wrong(file, lineOf(path), text);
  };
  const { memory, disks, ...rest } = spec;
  const request = {
    ...rest,
    memoryBytes: sizeOf(memory, ['memory']),
    disks: disks.map(({ size, ...disk }, index) => {
      const path = ['disks', String(index)];
      if ((size === undefined) === (disk.path === undefined)) {
        const text = `\`${formatPath(path)}\`: expected either a \`size\`, for a new disk, or the \`path\` of one that is there`;
        throw wrong(file, lineOf(path), text);
      }
      return size === undefined ? disk : { ...disk, sizeBytes: sizeOf(size, [...path, 'size']) };
    }),
  };
  failOn(checkRequest(request), (path) =>
    path.map((step) => ({ memoryBytes: 'memory', sizeBytes: 'size' })[step] ?? step),
  );
  return request;

  function failOn(
    problems: readonly Problem[],
    inFile: (path: readonly string[]) => string[] | readonly string[],
  ): void {
    const first = problems[0];
    if (first === undefined) return;
    const text = first.text.replace('memoryBytes', 'memory').replace('sizeBytes', 'size');
    throw wrong(file, lineOf(inFile(first.path)), text);
  }
}

function wrong(file: string, line: number, text: string): UsageError {
  return new UsageError(`${file}, line ${line}: ${text}.`, 'Correct the file and try again.');
}

/** Where a key stands in the text; for a missing one where its surroundings begin. */
function offsetOf(root: Node | null, path: readonly string[]): number | null {
  let node: unknown = root;
  let offset = isNode(root) ? (root.range?.[0] ?? null) : null;
  for (const step of path) {
    if (isMap(node)) {
      const pair = node.items.find(
        (item) => isPair(item) && isScalar(item.key) && String(item.key.value) === step,
      );
      if (pair === undefined) return offset;
      offset = (pair.key as Node).range?.[0] ?? offset;
      node = pair.value;
    } else {
      node = (node as { items?: readonly unknown[] } | null)?.items?.[Number(step)];
      offset = isNode(node) ? (node.range?.[0] ?? offset) : offset;
    }
  }
  return offset;
}
