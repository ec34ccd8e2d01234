// Values on the command line, checked where they are read: what is wrong here is wrong usage, and the
// message says what was expected.

import { InvalidArgumentError } from '@commander-js/extra-typings';
import { namePattern } from '../api/schemas.ts';
import { limits } from '../model/limits.ts';
import { type DiskFormat, diskFormats, isPlainPath } from '../model/path-disk.ts';
import { formatSize, parseSize, sizeSyntax } from '../model/quantities.ts';

export function memorySize(text: string): number {
  return size(text, limits.minMemoryBytes, limits.maxMemoryBytes);
}

export interface DiskArgument {
  readonly sizeBytes?: number;
  readonly policy?: string;
  readonly required?: boolean;
  readonly path?: string;
  readonly format?: DiskFormat;
}

/** `SIZE[,policy=NAME][,required=yes|no]` or `path=PATH[,format=FORMAT]`, once for each disk. */
export function diskArguments(text: string, earlier: readonly DiskArgument[] = []): DiskArgument[] {
  return [...earlier, text.startsWith('path=') ? pathArgument(text) : objectArgument(text)];
}

/** A path may have commas, so only a format at the very end is none of it. */
function pathArgument(text: string): DiskArgument {
  const [, path = '', named] = /^path=(.*?)(?:,format=([^,/]*))?$/su.exec(text) ?? [];
  if (!isPlainPath(path)) {
    throw new InvalidArgumentError(
      `Expected an absolute path of at most ${limits.maxPathLength} characters without \`.\`, \`..\`, empty steps and control characters.`,
    );
  }
  if (named === undefined) return { path };
  const format = diskFormats.find((one) => one === named);
  if (format !== undefined) return { path, format };
  throw new InvalidArgumentError(`Expected the format ${diskFormats.join(' or ')}.`);
}

function objectArgument(text: string): DiskArgument {
  const [sizeText = '', ...settings] = text.split(',');
  const sizeBytes = size(sizeText, limits.minDiskBytes, limits.maxDiskBytes);
  if (sizeBytes % limits.blockBytes !== 0) {
    throw new InvalidArgumentError(`Expected a multiple of ${limits.blockBytes} bytes.`);
  }
  let disk: DiskArgument = { sizeBytes };
  for (const setting of settings) {
    const [key, value = ''] = setting.split('=', 2);
    if (key === 'policy' && value !== '') disk = { ...disk, policy: value };
    else if (key === 'required') disk = { ...disk, required: yesOrNo(value) };
    else {
      throw new InvalidArgumentError(
        `${JSON.stringify(setting)}: expected policy=NAME or required=yes|no.`,
      );
    }
  }
  return disk;
}

export function yesOrNo(text: string): boolean {
  if (text === 'yes' || text === 'no') return text === 'yes';
  throw new InvalidArgumentError('Expected yes or no.');
}

export function vmName(text: string): string {
  if (new RegExp(namePattern).test(text)) return text;
  throw new InvalidArgumentError(
    `Expected 1 to ${limits.maxNameLength} lower-case letters, digits and inner hyphens.`,
  );
}

/** `a,b,c`. */
export function hostNames(text: string): string[] {
  const names = text.split(',').map((name) => name.trim());
  if (names.every((name) => name !== '')) return names;
  throw new InvalidArgumentError('Expected names of hosts with commas between them.');
}

/** `a,b,c`. */
export function vmNames(text: string): string[] {
  return text.split(',').map((name) => vmName(name.trim()));
}

/** A whole number within bounds. */
export function wholeNumber(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^\d+$/.test(text) && value >= least && value <= most) return value;
    throw new InvalidArgumentError(`Expected a whole number from ${least} to ${most}.`);
  };
}

function size(text: string, least: number, most: number): number {
  const bytes = parseSize(text);
  if (bytes === null) throw new InvalidArgumentError(`Expected ${sizeSyntax}.`);
  if (bytes < least || bytes > most) {
    throw new InvalidArgumentError(
      `Expected a size from ${formatSize(least)} to ${formatSize(most)}.`,
    );
  }
  return bytes;
}
