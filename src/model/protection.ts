// The HA protection state of a VM: the record under service `ha`, key `protection`, in the metadata
// of the VM's namespace object. It is all that a new master needs to know about the VM.

import type { Epoch } from './ids.ts';
import type { JsonValue } from './json.ts';
import type { HaRules } from './vm.ts';

export const haService = 'ha';
export const protectionKey = 'protection';

export interface ProtectionState extends HaRules {
  readonly protected: boolean;
  /** Of the VM. */
  readonly name: string;
  /** Epoch of the power-on that asked for protection: a delayed SET of an older one is refused. */
  readonly epoch: Epoch;
  readonly memoryBytes: number;
  readonly cpus: number;
}

/** The protection state in a metadata value, or null where there is none that can be understood. */
export function readProtection(value: JsonValue | undefined): ProtectionState | null {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return null;
  const state = value as { readonly [key: string]: JsonValue };
  if (typeof state['protected'] !== 'boolean' || typeof state['epoch'] !== 'number') return null;
  return value as unknown as ProtectionState;
}

/** What `vm show` says of a VM's protection. */
export type ProtectionStatus =
  /** It runs, and is to be protected, or was switched off, and that is not recorded yet. */
  | { readonly status: 'pending'; readonly reason: string }
  | { readonly status: 'protected' }
  | { readonly status: 'unprotected'; readonly reason: string };
