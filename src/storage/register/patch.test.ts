import fc from 'fast-check';
import { expect, test } from 'vitest';
import { epoch, objectId, revision, vmId } from '../../model/ids.ts';
import type { JsonValue } from '../../model/json.ts';
import { defaultPolicy } from '../../model/policy.ts';
import type { Metadata, NamespaceRecord } from '../../model/record.ts';
import { difference, type Patch, patched } from './patch.ts';

const names = fc.constantFrom('a', 'b', 'c', 'constructor');
const value = fc
  .jsonValue({ maxDepth: 2 })
  .map((one) => JSON.parse(JSON.stringify(one)) as JsonValue);

const record = fc
  .record({
    name: fc.constantFrom('x', 'y'),
    revision: fc.nat(3),
    metadata: fc.dictionary(names, fc.dictionary(names, value, { maxKeys: 3 }), { maxKeys: 3 }),
    files: fc.dictionary(names, fc.string(), { maxKeys: 3 }),
    disks: fc.subarray(['d0', 'd1', 'd2']),
    optional: fc.option(fc.subarray(['d0', 'd1']), { nil: undefined }),
  })
  .map(({ optional, ...of }): NamespaceRecord => {
    const made = {
      kind: 'namespace' as const,
      id: objectId('object-1'),
      vm: vmId('vm-1'),
      policy: defaultPolicy,
      voters: [],
      lifecycle: 'ready' as const,
      lock: { holder: null, epoch: epoch(0) },
      name: of.name,
      revision: revision(of.revision),
      metadata: of.metadata as Metadata,
      files: of.files,
      disks: of.disks.map(objectId),
    };
    return optional === undefined ? made : { ...made, optional: optional.map(objectId) };
  });

test('a patch, sent as text, makes of a record just what it was made for', () => {
  fc.assert(
    fc.property(record, record, (from, to) => {
      const before = structuredClone(from);
      const patch = difference(from, to) as Patch;
      const sent = JSON.parse(JSON.stringify(patch)) as Patch;
      expect(patched(from, sent)).toEqual(to);
      expect(from).toEqual(before);
      expect(difference(to, structuredClone(to))).toEqual({});
    }),
    { numRuns: 2000 },
  );
});

test('one key that changes takes no more than that key', () => {
  fc.assert(
    fc.property(record, value, (from, changed) => {
      const ofService = { ...from.metadata['ha'], protection: changed };
      const to = { ...from, metadata: { ...from.metadata, ha: ofService } };
      const text = JSON.stringify(difference(from, to));
      expect(text.length).toBeLessThan(JSON.stringify(changed).length + 60);
    }),
  );
});

test('a key that would not be one in a patch is not put into one', () => {
  const [from] = fc.sample(record, 1) as [NamespaceRecord];
  const metadata = JSON.parse('{"__proto__":{"a":1}}') as Metadata;
  expect(difference(from, { ...from, metadata })).toBe(null);
});
