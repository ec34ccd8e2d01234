// What may stand in a host's configuration file. The schema is the check, the type and, in its
// descriptions, the words with which a mistake is explained: each reads after "expected".

import Type, { type Static, type TString } from 'typebox';
import { deviceClasses } from '../model/device.ts';
import { limits, timings } from '../model/limits.ts';
import { durationSyntax, sizeSyntax } from '../model/quantities.ts';
import { nameSyntax } from '../platform/identity.ts';
import { logLevels } from '../platform/log.ts';

const closed = { additionalProperties: false } as const;
const text = (expected: string) => Type.String({ description: expected, minLength: 1 });
const path = text('a path');
const address = text('"ADDRESS:PORT"');
const size = Type.Union([Type.String(), Type.Integer({ minimum: 0 })], { description: sizeSyntax });
const percent = Type.Integer({
  minimum: 1,
  maximum: 100,
  description: 'a whole number of percent, 1 to 100',
});
const duration = text(durationSyntax);
const name = text(nameSyntax);

function choice<const Values extends readonly string[]>(values: Values) {
  const description = `one of ${values.join(', ')}`;
  return Type.Unsafe<Values[number]>({ type: 'string', enum: [...values], description });
}

function group<Properties extends Type.TProperties>(properties: Properties) {
  const description = `a group of keys: ${Object.keys(properties).join(', ')}`;
  return Type.Object(properties, { ...closed, description });
}

type WithoutUnit<Key> = Key extends `${infer Name}Ms` ? Name : never;
export type TimingName = WithoutUnit<keyof typeof timings>;

/** `leaseDuration`, ...: the file gives the unit with the value. */
export const timingNames = Object.keys(timings).map((key) => key.slice(0, -2)) as TimingName[];

const timingProperties = Object.fromEntries(
  timingNames.map((key) => [key, Type.Optional(duration)]),
) as Record<TimingName, Type.TOptional<TString>>;

const image = group({
  kernel: path,
  initrd: Type.Optional(path),
  append: Type.Optional(Type.String({ description: 'a kernel command line' })),
});

export const configSchema = group({
  cluster: name,
  name,
  kind: Type.Optional(choice(['full', 'witness'])),
  site: Type.Optional(name),
  dataDir: path,
  runDir: Type.Optional(path),
  storage: group({ address }),
  ha: group({ address }),
  tls: group({ ca: path, certificate: path, key: path, caKey: Type.Optional(path) }),
  api: Type.Optional(group({ socket: path })),
  capacity: Type.Optional(
    group({
      cpus: Type.Optional(Type.Integer({ minimum: 0, description: 'a number of processors' })),
      memory: Type.Optional(size),
      disk: Type.Optional(size),
      diskClass: Type.Optional(choice(deviceClasses)),
      nearFullAtPercent: Type.Optional(percent),
      fullAtPercent: Type.Optional(percent),
    }),
  ),
  devices: Type.Optional(
    Type.Array(
      group({
        path,
        class: choice(deviceClasses),
        capacity: Type.Optional(size),
        id: Type.Optional(Type.String({ minLength: 1, description: 'the id of a device' })),
      }),
      {
        description: 'a list of devices, each with a path and a class',
        maxItems: limits.maxDevices,
      },
    ),
  ),
  hypervisor: Type.Optional(
    group({
      driver: Type.Optional(choice(['qemu', 'process'])),
      accelerator: Type.Optional(choice(['auto', 'kvm', 'tcg'])),
      images: Type.Optional(
        Type.Record(Type.String(), image, { description: 'boot images by their names' }),
      ),
    }),
  ),
  timings: Type.Optional(group(timingProperties)),
  log: Type.Optional(group({ level: Type.Optional(choice(logLevels)), file: Type.Optional(path) })),
});

/** The configuration as it stands in the file. */
export type ConfigSettings = Static<typeof configSchema>;
