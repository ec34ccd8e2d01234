// What goes over the API's socket about a disk that is being served.

import { type Static, Type } from 'typebox';
import { closed, type DeepReadonly } from './schemas.ts';

export const DiskParamsSchema = closed({
  vm: Type.String({ minLength: 1, maxLength: 128, description: 'the name or the id of a VM' }),
  disk: Type.String({ minLength: 1, maxLength: 64, description: 'the name of a disk' }),
});

export const ServeRequestSchema = closed({
  socket: Type.String({
    minLength: 1,
    maxLength: 107,
    description: 'an absolute path of at most 107 bytes',
  }),
  readOnly: Type.Optional(Type.Boolean({ description: 'true or false' })),
});
export type ServeRequestBody = DeepReadonly<Static<typeof ServeRequestSchema>>;

export const DiskPolicyRequestSchema = closed({
  policy: Type.String({ minLength: 1, maxLength: 128, description: 'the name of a policy' }),
});

/** The first line of the answer. */
export interface ServeReply {
  readonly vm: string;
  readonly disk: string;
  readonly socket: string;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
}

/** The last line, where the service ended by itself. */
export interface ServeEndReply {
  readonly ended: { readonly code: string; readonly message: string; readonly todo: string };
}
