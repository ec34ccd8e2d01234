// The configuration of one host: read from YAML, checked in full, and turned into numbers, absolute
// paths and defaults, so that nothing behind this file meets a value that it can not use. A mistake
// is reported with its line, its key, what was expected there and what was found.

import { readFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { Errors } from 'typebox/value';
import { isMap, isNode, isScalar, isSeq, LineCounter, parseDocument, stringify } from 'yaml';
import { type DeviceClass, usualClass } from '../model/device.ts';
import { HoldfastError } from '../model/errors.ts';
import { type HostId, hostId, type StoreId, storeId } from '../model/ids.ts';
import {
  timings as defaultTimings,
  limits,
  type Timings,
  timingsProblem,
} from '../model/limits.ts';
import { durationSyntax, parseDuration, parseSize, sizeSyntax } from '../model/quantities.ts';
import { parseAddress } from '../platform/address.ts';
import { writeFileDurably } from '../platform/durable-file.ts';
import { isName, nameSyntax } from '../platform/identity.ts';
import type { LogLevel } from '../platform/log.ts';
import type { HostKind } from '../platform/members.ts';
import { maxSocketPathBytes } from '../platform/streams.ts';
import {
  type ConfigSettings,
  configSchema,
  type TimingName,
  timingNames,
} from './config-schema.ts';

export type { ConfigSettings } from './config-schema.ts';

/** A kernel that guests boot without firmware. */
export interface BootImage {
  readonly kernel: string;
  readonly initrd: string | null;
  readonly append: string;
}

export interface DeviceConfig {
  readonly path: string;
  readonly class: DeviceClass;
  readonly capacityBytes: number | null;
  /** What it is known by while it can not be read. */
  readonly id: StoreId | null;
}

/** Paths are absolute; null is "not configured". */
export interface HostConfig {
  readonly file: string;
  readonly cluster: string;
  readonly name: HostId;
  readonly kind: HostKind;
  /** Hosts of one site may fail together; copies and voters go to several. */
  readonly site: string | null;
  readonly dataDir: string;
  /** Sockets. */
  readonly runDir: string;
  readonly storage: { readonly address: string };
  readonly ha: { readonly address: string };
  readonly tls: {
    readonly ca: string;
    readonly certificate: string;
    readonly key: string;
    /** Only on hosts that make join tokens. */
    readonly caKey: string | null;
  };
  readonly api: { readonly socket: string };
  readonly capacity: {
    readonly cpus: number | null;
    readonly memoryBytes: number | null;
    readonly diskBytes: number | null;
    readonly diskClass: DeviceClass;
    /** Used part of the device from which on it is told of, and takes no new objects. */
    readonly nearFullAtPercent: number;
    readonly fullAtPercent: number;
  };
  /** Beside the store's own, for components. */
  readonly devices: readonly DeviceConfig[];
  readonly hypervisor: {
    /** `process` is for labs: guests are processes that do what the built-in guest does. */
    readonly driver: 'qemu' | 'process';
    readonly accelerator: 'auto' | 'kvm' | 'tcg';
    readonly images: Readonly<Record<string, BootImage>>;
  };
  readonly timings: Timings;
  readonly log: { readonly level: LogLevel; readonly file: string | null };
}

/** Where a host keeps what, below its `dataDir`. */
export function statePaths(dataDir: string): {
  store: string;
  members: string;
  policies: string;
  usedTokens: string;
} {
  return {
    store: join(dataDir, 'store'),
    members: join(dataDir, 'members.json'),
    policies: join(dataDir, 'policies.json'),
    usedTokens: join(dataDir, 'used-tokens.json'),
  };
}

/** Rejects with `bad-request`, one line per mistake. */
export async function readConfig(file: string): Promise<HostConfig> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new HoldfastError('bad-request', `${file} can not be read: ${why}`, { cause });
  }
  return parseConfig(text, file);
}

/** Writes a configuration file that `readConfig` accepts; it is checked before. */
export async function writeConfig(file: string, settings: ConfigSettings): Promise<void> {
  const text = `# A host of a Holdfast cluster. Relative paths start at this file's folder.\n${stringify(settings)}`;
  parseConfig(text, file);
  await writeFileDurably(file, text);
}

type Path = readonly (string | number)[];
/** Notes a mistake at a key. */
type Complain = (path: Path, problem: string) => void;

export function parseConfig(text: string, file: string): HostConfig {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const problems: { line: number; text: string }[] = [];
  for (const error of document.errors) {
    problems.push({ line: lines.linePos(error.pos[0]).line, text: error.message });
  }
  refuse(file, problems);

  const complain: Complain = (path, problem) => {
    const key = path.length === 0 ? '' : `${path.join('.')}: `;
    problems.push({ line: lineOf(path), text: `${key}${problem}` });
  };
  /** The line of the key, or of the closest one around it that is there. */
  function lineOf(path: Path): number {
    let node: unknown = document.contents;
    let line = 1;
    for (const part of path) {
      if (isSeq(node)) {
        node = node.items[Number(part)];
        if (isNode(node) && node.range) line = lines.linePos(node.range[0]).line;
        continue;
      }
      if (!isMap(node)) break;
      const pair = node.items.find(
        ({ key }) => isScalar(key) && String(key.value) === String(part),
      );
      if (pair === undefined) break;
      if (isScalar(pair.key) && pair.key.range) line = lines.linePos(pair.key.range[0]).line;
      node = pair.value;
    }
    return line;
  }

  let settings: unknown;
  try {
    settings = document.toJS();
  } catch (error) {
    complain([], error instanceof Error ? error.message : String(error)); // aliases without bound
    refuse(file, problems);
  }
  checkShape(settings, complain);
  refuse(file, problems);
  const config = interpret(settings as ConfigSettings, file, complain);
  refuse(file, problems);
  return config;
}

function refuse(file: string, problems: { line: number; text: string }[]): void {
  if (problems.length === 0) return;
  problems.sort((a, b) => a.line - b.line);
  const report = problems.map(({ line, text }) => `${file}:${line}: ${text}`).join('\n');
  throw new HoldfastError('bad-request', report);
}

/** Complains once about each place that does not fit the schema. */
function checkShape(settings: unknown, complain: Complain): void {
  const seen = new Set<string>();
  const report = (path: Path, problem: string) => {
    if (seen.has(path.join('/'))) return;
    seen.add(path.join('/'));
    complain(path, problem);
  };
  for (const error of Errors(configSchema, settings)) {
    const path = error.instancePath.split('/').slice(1).map(unescapePointer);
    if (error.keyword === 'additionalProperties') continue; // reported for the property itself
    if (error.keyword === 'required') {
      for (const key of error.params.requiredProperties) {
        report([...path, key], `is missing; expected ${expectedAt([...path, key])}`);
      }
    } else if (error.keyword === 'boolean') {
      report(path, `unknown key; expected ${expectedAt(path.slice(0, -1))}`);
    } else {
      report(
        path,
        `expected ${expectedAt(path)}, found ${JSON.stringify(valueAt(settings, path))}`,
      );
    }
  }
}

function unescapePointer(part: string): string {
  return part.replaceAll('~1', '/').replaceAll('~0', '~');
}

interface SchemaNode {
  readonly description?: string;
  readonly properties?: Readonly<Record<string, SchemaNode>>;
  readonly patternProperties?: Readonly<Record<string, SchemaNode>>;
  readonly items?: SchemaNode;
}

function expectedAt(path: Path): string {
  let node: SchemaNode | undefined = configSchema as SchemaNode;
  for (const key of path) {
    node =
      node?.properties?.[key] ?? node?.items ?? Object.values(node?.patternProperties ?? {})[0];
  }
  return node?.description ?? 'another value';
}

function valueAt(value: unknown, path: Path): unknown {
  return path.reduce<unknown>((at, key) => (at as Record<string, unknown> | null)?.[key], value);
}

function interpret(settings: ConfigSettings, file: string, complain: Complain): HostConfig {
  const folder = dirname(resolve(file));
  const absolute = (path: string) => resolve(folder, path);
  const optional = (path: string | undefined) => (path === undefined ? null : absolute(path));
  const mismatch = (path: Path, expected: string, found: string | number) =>
    complain(path, `expected ${expected}, found ${JSON.stringify(found)}`);

  function name(path: Path, found: string): string {
    if (!isName(found)) mismatch(path, nameSyntax, found);
    return found;
  }
  function address(path: Path, found: string): { address: string } {
    const parsed = parseAddress(found);
    if (parsed === null || parsed.port === 0) mismatch(path, '"ADDRESS:PORT"', found);
    return { address: found };
  }
  function size(path: Path, found: string | number | undefined): number | null {
    if (found === undefined) return null;
    const sizeBytes = parseSize(found);
    if (sizeBytes === null) mismatch(path, sizeSyntax, found);
    return sizeBytes;
  }

  const dataDir = absolute(settings.dataDir);
  const runDir = optional(settings.runDir) ?? join(dataDir, 'run');
  const socket = optional(settings.api?.socket) ?? join(runDir, 'api.sock');
  if (Buffer.byteLength(socket) > maxSocketPathBytes) {
    const at = settings.api
      ? ['api', 'socket']
      : [settings.runDir === undefined ? 'dataDir' : 'runDir'];
    const limit = `a Unix socket's path has at most ${maxSocketPathBytes} bytes`;
    complain(at, `the path ${socket} is too long: ${limit}`);
  }
  const images = Object.entries(settings.hypervisor?.images ?? {}).map(
    ([key, image]): [string, BootImage] => {
      const path = ['hypervisor', 'images', key];
      if (key === 'disk')
        complain(path, '"disk" means booting from the first disk; use another name');
      else name(path, key);
      const initrd = optional(image.initrd);
      return [key, { kernel: absolute(image.kernel), initrd, append: image.append ?? '' }];
    },
  );
  if (settings.storage.address === settings.ha.address) {
    complain(
      ['ha', 'address'],
      'expected another address than storage.address; the port may differ',
    );
  }
  const devices = (settings.devices ?? []).map((device, index): DeviceConfig => {
    const at = ['devices', index];
    const path = absolute(device.path);
    const earlier = (settings.devices ?? []).slice(0, index).map((one) => absolute(one.path));
    if (path === statePaths(dataDir).store || earlier.includes(path)) {
      complain([...at, 'path'], `${path} is a device of this host already`);
    }
    return {
      path,
      class: device.class,
      capacityBytes: size([...at, 'capacity'], device.capacity),
      id: device.id === undefined ? null : storeId(device.id),
    };
  });
  if (devices.length > 0 && settings.kind === 'witness') {
    complain(['devices'], 'a witness holds no data, and needs no devices for it');
  }
  const cpus = settings.capacity?.cpus ?? null;
  if (cpus !== null && cpus > limits.maxCpus) {
    mismatch(['capacity', 'cpus'], `at most ${limits.maxCpus} processors`, cpus);
  }
  const nearFullAtPercent = settings.capacity?.nearFullAtPercent ?? limits.nearFullAtPercent;
  const fullAtPercent = settings.capacity?.fullAtPercent ?? limits.fullAtPercent;
  if (nearFullAtPercent > fullAtPercent) {
    mismatch(
      ['capacity', 'nearFullAtPercent'],
      `at most fullAtPercent (${fullAtPercent})`,
      nearFullAtPercent,
    );
  }
  return {
    file: resolve(file),
    cluster: name(['cluster'], settings.cluster),
    name: hostId(name(['name'], settings.name)),
    kind: settings.kind ?? 'full',
    site: settings.site === undefined ? null : name(['site'], settings.site),
    dataDir,
    runDir,
    storage: address(['storage', 'address'], settings.storage.address),
    ha: address(['ha', 'address'], settings.ha.address),
    tls: {
      ca: absolute(settings.tls.ca),
      certificate: absolute(settings.tls.certificate),
      key: absolute(settings.tls.key),
      caKey: optional(settings.tls.caKey),
    },
    api: { socket },
    capacity: {
      cpus,
      memoryBytes: size(['capacity', 'memory'], settings.capacity?.memory),
      diskBytes: size(['capacity', 'disk'], settings.capacity?.disk),
      diskClass: settings.capacity?.diskClass ?? usualClass,
      nearFullAtPercent,
      fullAtPercent,
    },
    devices,
    hypervisor: {
      driver: settings.hypervisor?.driver ?? 'qemu',
      accelerator: settings.hypervisor?.accelerator ?? 'auto',
      images: Object.fromEntries(images),
    },
    timings: interpretTimings(settings.timings ?? {}, complain),
    log: { level: settings.log?.level ?? 'info', file: optional(settings.log?.file) },
  };
}

function interpretTimings(
  settings: Readonly<Partial<Record<TimingName, string>>>,
  complain: Complain,
): Timings {
  const timings: { -readonly [key in keyof Timings]: number } = { ...defaultTimings };
  let sound = true;
  for (const name of timingNames) {
    const found = settings[name];
    if (found === undefined) continue;
    const durationMs = parseDuration(found);
    if (durationMs === null || durationMs === 0) {
      sound = false;
      complain(['timings', name], `expected ${durationSyntax}, found ${JSON.stringify(found)}`);
    } else {
      timings[`${name}Ms`] = durationMs;
    }
  }
  const problem = sound ? timingsProblem(timings) : null;
  if (problem !== null) complain(['timings'], problem);
  return timings;
}
