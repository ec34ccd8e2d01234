// Names and counters. Every counter of the system is a branded number, because the worst bugs of a
// fencing protocol are an epoch compared with a ballot, or a term with an incarnation: the compiler
// refuses to mix them.

declare const brand: unique symbol;
type Branded<Base, Name extends string> = Base & { readonly [brand]: Name };

/** A host's name, unique in the cluster; it is the common name of the host's certificate. */
export type HostId = Branded<string, 'HostId'>;
/** Identity of one store (the pool of a host's devices); a new or emptied store has a new one. */
export type StoreId = Branded<string, 'StoreId'>;
export type VmId = Branded<string, 'VmId'>;
export type ObjectId = Branded<string, 'ObjectId'>;
export type ComponentId = Branded<string, 'ComponentId'>;

/** Grows by one with every new holder of a VM's lock; fences older writers. */
export type Epoch = Branded<number, 'Epoch'>;
/** Grows with every election of a master. */
export type Term = Branded<number, 'Term'>;
/** Grows, durably, with every start of a host's daemon. */
export type Incarnation = Branded<number, 'Incarnation'>;
/** Grows by one with every committed change of an object's record. */
export type Revision = Branded<number, 'Revision'>;

export const hostId = (text: string): HostId => text as HostId;
export const storeId = (text: string): StoreId => text as StoreId;
export const vmId = (text: string): VmId => text as VmId;
export const objectId = (text: string): ObjectId => text as ObjectId;
export const componentId = (text: string): ComponentId => text as ComponentId;
export const epoch = (value: number): Epoch => value as Epoch;
export const term = (value: number): Term => value as Term;
export const incarnation = (value: number): Incarnation => value as Incarnation;
export const revision = (value: number): Revision => value as Revision;
