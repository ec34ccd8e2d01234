// What is asked of one disk of a VM.
//
// `POST /v1/vms/:vm/disks/:disk/policy`: another policy for it.
//
// `POST /v1/vms/:vm/disks/:disk/serve`: a disk is served for as long as the answer is being read. Its first
// line says where, empty lines are signs of life, and a last line says why it ended, if it did so by
// itself. The connection is the claim: when it breaks, whatever the reason, the disk is let go.

import type { ServerResponse } from 'node:http';
import { isAbsolute } from 'node:path';
import type { Manager } from '../manager/api.ts';
import type { DiskService } from '../manager/disk-service.ts';
import { HoldfastError } from '../model/errors.ts';
import {
  DiskParamsSchema,
  DiskPolicyRequestSchema,
  type ServeEndReply,
  type ServeReply,
  ServeRequestSchema,
} from './disk-schemas.ts';
import type { App } from './storage-routes.ts';
import type { ObjectReply } from './storage-schemas.ts';

const heartbeatMs = 5000;

export interface DiskRoutes {
  /** Lets go of all disks that are served through this API, and says so to who reads. */
  close(): Promise<void>;
}

export function addDiskRoutes(app: App, manager: Manager): DiskRoutes {
  const open = new Set<Claim>();

  app.post(
    '/v1/vms/:vm/disks/:disk/policy',
    { schema: { params: DiskParamsSchema, body: DiskPolicyRequestSchema } },
    (request): Promise<ObjectReply> => {
      const { vm, disk } = request.params;
      return manager.setDiskPolicy(vm, disk, request.body.policy);
    },
  );
  app.post(
    '/v1/vms/:vm/disks/:disk/serve',
    { schema: { params: DiskParamsSchema, body: ServeRequestSchema } },
    async (request, reply) => {
      const { vm, disk } = request.params;
      const { socket, readOnly = false } = request.body;
      if (!isAbsolute(socket)) {
        throw new HoldfastError(
          'bad-request',
          `socket: expected an absolute path, found "${socket}"`,
        );
      }
      const claim = new Claim(reply.raw, () => open.delete(claim));
      const onEnded = (reason: HoldfastError): void => void claim.end(reason);
      const service = await manager.serveDisk(vm, { disk, socket, readOnly, onEnded });
      reply.hijack();
      open.add(claim);
      await claim.begin(service);
    },
  );
  return {
    async close() {
      const reason = new HoldfastError('stopped', 'The API of this host is closing');
      await Promise.all([...open].map((claim) => claim.end(reason)));
    },
  };
}

/** One reader of one service. */
class Claim {
  readonly #response: ServerResponse;
  readonly #onEnd: () => void;
  #service: DiskService | null = null;
  #beat: NodeJS.Timeout | null = null;
  #isGone = false;
  #isOver = false;

  constructor(response: ServerResponse, onEnd: () => void) {
    this.#response = response;
    this.#onEnd = onEnd;
    response.on('error', () => undefined);
    response.on('close', () => {
      this.#isGone = true;
      if (this.#service !== null) void this.end(null);
    });
  }

  async begin(service: DiskService): Promise<void> {
    this.#service = service;
    // Who left while it was being opened wants nothing any more.
    if (this.#isGone) return this.end(null);
    const { vm, disk, socket, sizeBytes, readOnly } = service;
    this.#response.writeHead(200, { 'content-type': 'application/x-ndjson', connection: 'close' });
    this.#line({ vm, disk, socket, sizeBytes, readOnly } satisfies ServeReply);
    this.#beat = setInterval(() => this.#response.write('\n'), heartbeatMs);
  }

  async end(reason: HoldfastError | null): Promise<void> {
    if (this.#isOver) return;
    this.#isOver = true;
    if (this.#beat !== null) clearInterval(this.#beat);
    this.#onEnd();
    await this.#service?.close();
    if (this.#isGone) return;
    if (reason !== null) {
      const { code, message, todo } = reason;
      this.#line({ ended: { code, message, todo } } satisfies ServeEndReply);
    }
    this.#response.end();
  }

  #line(value: ServeReply | ServeEndReply): void {
    this.#response.write(`${JSON.stringify(value)}\n`);
  }
}
