// The part of the API that is about storage rather than VMs.

import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import type {
  FastifyBaseLogger,
  FastifyInstance,
  RawReplyDefaultExpression,
  RawRequestDefaultExpression,
  RawServerDefault,
} from 'fastify';
import type { Manager, MetadataRequest } from '../manager/api.ts';
import { NothingSchema } from './schemas.ts';
import {
  HostParamsSchema,
  MetadataChangesSchema,
  type MetadataOutcomeReply,
  MetadataQuerySchema,
  type MetadataValuesReply,
  ObjectParamsSchema,
  ObjectQuerySchema,
  type ObjectReply,
  PolicyParamsSchema,
  type PolicyReply,
  PolicyRequestSchema,
} from './storage-schemas.ts';

export type App = FastifyInstance<
  RawServerDefault,
  RawRequestDefaultExpression,
  RawReplyDefaultExpression,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>;

/** Thousands of VMs in one call. */
const maxChangesBytes = 16 * 1024 * 1024;

export function addStorageRoutes(app: App, manager: Manager): void {
  const { policies } = manager;
  app.get(
    '/v1/objects',
    { schema: { querystring: ObjectQuerySchema } },
    (request): readonly ObjectReply[] => {
      const { vm, problems } = request.query;
      return manager.objects({
        ...(vm === undefined ? {} : { vm }),
        problems: problems === 'true',
      });
    },
  );
  app.get(
    '/v1/objects/:object',
    { schema: { params: ObjectParamsSchema } },
    (request): ObjectReply => manager.object(request.params.object),
  );
  app.get(
    '/v1/metadata',
    { schema: { querystring: MetadataQuerySchema } },
    (request): MetadataValuesReply => {
      const { service, key, vms } = request.query;
      return manager.metadata(service, key, vms?.split(','));
    },
  );
  app.put(
    '/v1/metadata',
    { schema: { body: MetadataChangesSchema }, bodyLimit: maxChangesBytes },
    (request): Promise<readonly MetadataOutcomeReply[]> =>
      manager.setMetadata(request.body.changes as readonly MetadataRequest[]),
  );
  app.delete('/v1/hosts/:host', { schema: { params: HostParamsSchema } }, async (request) => {
    await manager.removeHost(request.params.host);
    return {};
  });
  app.get('/v1/policies', (): Promise<readonly PolicyReply[]> => policies.list());
  app.get(
    '/v1/policies/:policy',
    { schema: { params: PolicyParamsSchema } },
    (request): Promise<PolicyReply> => policies.get(request.params.policy),
  );
  app.post(
    '/v1/policies',
    { schema: { body: PolicyRequestSchema } },
    (request, reply): Promise<PolicyReply> => {
      const { name, failuresToTolerate, stripes = 1, thick = false, deviceClass } = request.body;
      reply.code(201);
      return policies.create(name, {
        failuresToTolerate,
        stripes,
        ...(thick ? { thick } : {}),
        ...(deviceClass === undefined ? {} : { deviceClass }),
      });
    },
  );
  app.post(
    '/v1/policies/:policy/default',
    { schema: { params: PolicyParamsSchema, body: NothingSchema } },
    (request): Promise<PolicyReply> => policies.setDefault(request.params.policy),
  );
  app.delete(
    '/v1/policies/:policy',
    { schema: { params: PolicyParamsSchema } },
    async (request) => {
      await policies.remove(request.params.policy);
      return {};
    },
  );
}
