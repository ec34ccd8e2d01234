// The command line against a real API server with a fake manager: what is said, where, and with which
// exit status.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type ApiServer, serveApi } from '../../src/api/server.ts';
import type { Io } from '../../src/cli/io.ts';
import { runCli } from '../../src/cli/program.ts';
import { readConfig } from '../../src/daemon/config.ts';
import { HoldfastError } from '../../src/model/errors.ts';
import { FakeManager, silentLog } from './fake-manager.ts';

let folder: string;
let socket: string;
let manager: FakeManager;
let server: ApiServer;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'hf-cli-'));
  socket = join(folder, 'api.sock');
  manager = new FakeManager();
  const createToken = async (): Promise<string> => 'secret';
  server = await serveApi({
    socketPath: socket,
    manager,
    hostCommands: { createToken },
    log: silentLog,
  });
});
afterEach(async () => {
  await server.close();
  rmSync(folder, { recursive: true, force: true });
});

interface Outcome {
  readonly status: number;
  readonly out: string;
  readonly err: string;
}

async function run(args: readonly string[], options: Partial<Io> = {}): Promise<Outcome> {
  let out = '';
  let err = '';
  const io: Io = {
    out: (text) => (out += text),
    err: (text) => (err += text),
    closed: new AbortController().signal,
    errIsTerminal: false,
    env: { HOME: folder },
    style: (_format, text) => text,
    ...options,
  };
  const status = await runCli(args, io);
  return { status, out, err };
}

/** With the socket of the test's server. */
const cli = (...args: string[]): Promise<Outcome> => run([...args, '--socket', socket]);

const file = (name: string, text: string): string => {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
};

const create = ['vm', 'create', 'web', '--memory', '96MiB', '--disk', '256MiB'];

describe('exit status 2, one line what, one line what to do', () => {
  it.each<[string, string[], RegExp]>([
    ['an unknown command', ['vm', 'crate'], /unknown command 'crate'/i],
    ['an unknown option', ['vm', 'list', '--al'], /unknown option '--al'/i],
    ['a missing argument', ['vm', 'start'], /missing required argument 'name'/i],
    ['an argument too many', ['vm', 'list', 'x'], /too many arguments/i],
    ['a missing option', ['host', 'run'], /required option '--config <file>' not specified/i],
    ['a wrong format', ['vm', 'list', '--output', 'xml'], /Allowed choices are table, json/],
    [
      'no size',
      ['vm', 'create', 'a', '--memory', 'much', '--disk', '1GiB'],
      /Expected a size such as/,
    ],
    [
      'a negative size',
      ['vm', 'create', 'a', '--memory', '-5MiB', '--disk', '1GiB'],
      /'-5MiB' is invalid/,
    ],
    [
      'a negative disk',
      ['vm', 'create', 'a', '--memory', '96MiB', '--disk', '-1'],
      /'-1' is invalid/,
    ],
    [
      'too little memory',
      ['vm', 'create', 'a', '--memory', '1', '--disk', '1GiB'],
      /from 16MiB to 16TiB/,
    ],
    [
      'an odd disk',
      ['vm', 'create', 'a', '--memory', '96MiB', '--disk', '2000001'],
      /multiple of 4096/,
    ],
    [
      'a bad name',
      ['vm', 'create', 'A_b', '--memory', '96MiB', '--disk', '1GiB'],
      /'A_b' is invalid/,
    ],
    ['no memory', ['vm', 'create', 'a', '--disk', '1GiB'], /--memory is missing/],
    [
      'no name',
      ['vm', 'create', '--memory', '96MiB', '--disk', '1GiB'],
      /name of the VM is missing/,
    ],
    ['no processor', [...create, '--cpus', '0'], /whole number from 1 to 512/],
    ['too few hosts', ['demo', '--hosts', '2'], /whole number from 3 to 9/],
    ['a stop of nothing', ['demo', '--stop'], /--stop needs --context/],
    [
      'two tokens',
      [
        'host',
        'join',
        '--token',
        'a',
        '--token-file',
        'b',
        '--name',
        'n',
        '--dir',
        'd',
        '--storage-address',
        'a:1',
        '--ha-address',
        'a:2',
      ],
      /Either --token or --token-file/,
    ],
    ['no context file', ['vm', 'list', '--context', '/nowhere/context'], /can not be read/],
    ['context and socket', ['vm', 'list', '--context', 'a', '--socket', 'b'], /exclude each other/],
  ])('%s', async (_what, args, message) => {
    const { status, out, err } = await run(args);
    expect(err).toMatch(message);
    expect(err.trimEnd().split('\n')).toHaveLength(2);
    expect(err).toMatch(/^error: /);
    expect({ status, out }).toEqual({ status: 2, out: '' });
    expect(manager.calls).toEqual([]);
  });

  it('is JSON with --output json', async () => {
    const { status, out, err } = await run(['vm', 'start', '--output', 'json']);
    expect({ status, out }).toEqual({ status: 2, out: '' });
    expect(JSON.parse(err)).toEqual({
      error: {
        code: 'wrong-usage',
        message: "Missing required argument 'name'.",
        todo: expect.stringMatching(/--help/),
      },
    });
  });

  it('shows help where a command is missing, on standard error', async () => {
    const { status, out, err } = await run(['vm']);
    expect({ status, out }).toEqual({ status: 2, out: '' });
    expect(err).toMatch(/create .*\n\s+start/s);
  });

  it('help that was asked for is no error', async () => {
    const { status, out, err } = await run(['vm', 'create', '--help']);
    expect({ status, err }).toEqual({ status: 0, err: '' });
    expect(out).toMatch(/--memory <size>/);
    expect(await run(['--version'])).toMatchObject({ status: 0, out: '0.1.0\n' });
  });
});

describe('exit status 1', () => {
  it('says what the host said', async () => {
    expect(await cli('vm', 'show', 'nobody')).toEqual({
      status: 1,
      out: '',
      err: 'error: There is no VM nobody.\nRun `holdfast vm list` to see the VMs that this host knows.\n',
    });
  });

  it('as JSON too', async () => {
    manager.add('web');
    const { status, out, err } = await cli(...create, '--output', 'json');
    expect({ status, out }).toEqual({ status: 1, out: '' });
    expect(JSON.parse(err).error).toMatchObject({
      code: 'name-in-use',
      todo: /Choose another/ as never,
    });
  });

  it('sets and gets metadata, and fails where some VM was not changed', async () => {
    manager.add('web');
    manager.add('db');
    const set = await cli('vm', 'metadata', 'set', 'backup', 'last', '{"n":1}', 'web', 'db');
    expect(set).toMatchObject({ status: 0, err: '' });
    expect(set.out).toMatch(/^web +set\ndb +set$/m);
    expect(manager.calls.pop()).toEqual([
      'setMetadata',
      { vm: 'web', service: 'backup', key: 'last', value: { n: 1 } },
      { vm: 'db', service: 'backup', key: 'last', value: { n: 1 } },
    ]);
    const options = ['--expected', 'null', '--revision', '7'];
    const some = await cli('vm', 'metadata', 'set', 'b', 'k', 'null', 'web', 'gone', ...options);
    expect(some.status).toBe(1);
    expect(some.out).toMatch(/^web +set\ngone +There is no VM gone$/m);
    expect(manager.calls.pop()?.[1]).toEqual({
      vm: 'web',
      service: 'b',
      key: 'k',
      value: null,
      expected: null,
      revision: 7,
    });
    const got = await cli('vm', 'metadata', 'get', 'backup', 'last', 'web');
    expect(got.out).toMatch(/^web +7 +\{"n":1\}\nlost +not accessible$/m);
    expect(manager.calls.pop()).toEqual(['metadata', 'backup', 'last', ['web']]);
    await cli('vm', 'metadata', 'get', 'backup', 'last');
    expect(manager.calls.pop()).toEqual(['metadata', 'backup', 'last', undefined]);
    expect((await cli('vm', 'metadata', 'set', 'b', 'k', '{', 'web')).status).toBe(2);
  });

  it('gives each disk its policy, and takes back that it is required', async () => {
    const args = ['vm', 'create', 'web', '--memory', '96MiB', '--disk', '1GiB'];
    await cli(...args, '--disk', '256MiB,policy=single,required=no');
    expect(manager.calls.pop()?.[1]).toMatchObject({
      disks: [{ sizeBytes: 2 ** 30 }, { sizeBytes: 2 ** 28, policy: 'single', required: false }],
    });
    for (const disk of ['1GiB,size=2', '1GiB,required=maybe', ',required=no']) {
      expect((await cli('vm', 'create', 'x', '--memory', '96MiB', '--disk', disk)).status).toBe(2);
    }
    const set = await cli('vm', 'set', 'web', '--disk', 'disk1', '--required', 'yes');
    expect(set.out).toBe('web requires disk1.\n');
    expect(manager.calls.pop()).toEqual(['setRequired', 'web', 'disk1', true]);
  });

  it('takes disks at paths, of any name, and says that they stay', async () => {
    const create = (disk: string) =>
      cli('vm', 'create', 'web', '--memory', '96MiB', '--disk', '1GiB', '--disk', disk);
    const sent = async (disk: string) => {
      expect(await create(disk)).toMatchObject({ status: 0 });
      manager.known.clear();
      return (manager.calls.pop() as [string, { disks: unknown[] }])[1].disks[1];
    };
    expect(await sent('path=/a,b c/d.img')).toEqual({ path: '/a,b c/d.img' });
    expect(await sent('path=/a,b.img,format=qcow2')).toEqual({
      path: '/a,b.img',
      format: 'qcow2',
    });
    for (const disk of ['path=', 'path=a', 'path=/a/', 'path=/a/../b', 'path=/a,format=vmdk']) {
      expect((await create(disk)).status).toBe(2);
    }

    const path = '/mnt/nfs/web.qcow2';
    const { spec } = manager.add('web');
    const disks = [...spec.disks, { name: 'disk1', path, format: 'qcow2' as const }];
    manager.known.set('web', { ...manager.add('web'), spec: { ...spec, disks } });
    expect((await cli('vm', 'list')).out).toContain(`256 MiB + ${path}`);
    expect((await cli('vm', 'show', 'web')).out).toMatch(
      /Restarted +2026-01-02 03:04:05 by host-1 in term 5: hostSilent\n +it ran on host-2\n/,
    );
    expect((await cli('vm', 'show', 'web')).out).toMatch(
      /\nDISK +PATH +FORMAT\ndisk1 +\/mnt\/nfs\/web\.qcow2 +qcow2\n$/,
    );
    expect((await cli('vm', 'remove', 'web')).out).toBe(
      `web is removed. ${path} stays as it is.\n`,
    );
  });

  it('gives a disk another policy, and says what is to be done for it', async () => {
    manager.add('web');
    const set = await cli('disk', 'set-policy', 'web/disk0', 'gold');
    expect(manager.calls.pop()).toEqual(['setDiskPolicy', 'web', 'disk0', 'gold']);
    expect(set.out).toMatch(
      /^web\/disk0 has the policy gold \(failuresToTolerate 1, stripes 1, thin\)\. It is being made so: .*1 of the 2 whole copies.*`holdfast object show web\/disk0`/,
    );
    const json = await cli('--output', 'json', 'disk', 'set-policy', 'web/disk0', 'gold');
    expect(JSON.parse(json.out)).toMatchObject({ vmName: 'web', label: 'disk0' });
    expect((await cli('disk', 'set-policy', 'web', 'gold')).status).toBe(2);
  });

  it('lists objects and draws one', async () => {
    manager.add('web');
    const { out } = await cli('object', 'list');
    expect(out).toMatch(
      /^web\/disk0 +256 MiB +1 failure +1 of 2 +1 of 3 +inaccessible +It has 1 of the 2/m,
    );
    const tree = (await cli('object', 'show', 'web/disk0')).out;
    expect(tree).toMatch(/^Accessible +no: disk0 lacks host-3$/m);
    expect(tree.slice(tree.indexOf('\n\n') + 2)).toBe(
      [
        'web/disk0',
        '├─ mirror 0',
        '│  └─ stripe 0',
        '│     └─ c on host-1: active',
        '├─ mirror 1',
        '│  └─ stripe 0',
        '│     └─ d on host-2, device /mnt/nvme1: degraded',
        '└─ voters, 2 of 3 needed',
        '   ├─ host-1 (data): reachable',
        '   ├─ host-2 (data): degraded',
        '   └─ host-3 (witness): absent',
        '',
      ].join('\n'),
    );
    const json = await cli('object', 'list', '--vm', 'web', '--problems', '--output', 'json');
    expect(JSON.parse(json.out)).toMatchObject([{ label: 'disk0', vmName: 'web' }]);
    expect((await cli('object', 'show', 'web/disk7')).status).toBe(1);
  });

  it('makes, shows and removes policies, and says what they need', async () => {
    const made = await cli('policy', 'create', 'gold', '--failures-to-tolerate', '2', '--thick');
    expect(made).toMatchObject({ status: 0, err: '' });
    expect(made.out).toMatch(/^Policy gold: tolerates 2 failures on 5 hosts, 1 stripe, thick/);
    expect((await cli('policy', 'create', 'gold', '--failures-to-tolerate', '1')).err).toMatch(
      /There is a storage policy "gold" already/,
    );
    expect((await cli('policy', 'default', 'gold')).status).toBe(0);
    const { out } = await cli('policy', 'list');
    expect(out).toMatch(/^mirror +1 failure +1 +thin +any +3 +built in$/m);
    expect(out).toMatch(/^gold +2 failures +1 +thick +any +5 +default$/m);
    expect((await cli('policy', 'show', 'default')).out).toMatch(/^Policy gold: /);
    expect((await cli('policy', 'remove', 'gold')).err).toMatch(/"gold" is the default/);
    expect((await cli('policy', 'remove', 'mirror')).err).toMatch(/"mirror" is built in/);
    expect((await cli('policy', 'default', 'single')).status).toBe(0);
    expect((await cli('policy', 'remove', 'gold')).out).toBe('Policy gold is removed.\n');
    expect((await cli('policy', 'show', 'gold')).err).toMatch(/no storage policy "gold"/);
    const wrong = await cli('policy', 'create', 'x', '--failures-to-tolerate', '4');
    expect(wrong.status).toBe(2);
    const quick = ['policy', 'create', 'quick', '--failures-to-tolerate', '1', '--class'];
    expect((await cli(...quick, 'fast')).out).toMatch(/^Policy quick: .*, on fast devices\.$/m);
    expect((await cli('policy', 'list')).out).toMatch(/^quick +1 failure +1 +thin +fast +3$/m);
    expect((await cli(...quick, 'cheap')).status).toBe(2);
  });

  it('for an unknown policy, which only the host knows', async () => {
    const { status, err } = await cli(...create, '--policy', 'gold');
    expect(status).toBe(1);
    expect(err).toMatch(/`policy` is "gold": expected one of the policies default, /);
  });

  it('where no host answers', async () => {
    const { status, err } = await run(['vm', 'list', '--socket', join(folder, 'none.sock')]);
    expect(status).toBe(1);
    expect(err).toMatch(/No host answers.*there is no such socket/);
  });

  it('keeps a message of many lines on one', async () => {
    manager.failure = new HoldfastError('no-capacity', 'First\n  second');
    expect((await cli(...create)).err).toMatch(/^creating web \.\.\.\nerror: First second\n.*\n$/);
  });
});

describe('vm', () => {
  it('create sends what the options say', async () => {
    const { status, out, err } = await cli(
      ...create,
      ...[
        '--disk',
        '1GiB',
        '--cpus',
        '2',
        '--policy',
        'mirror-3',
        '--boot',
        'disk',
        '--hosts',
        'h1, h2,h3',
        '--unprotected',
      ],
    );
    expect({ status, out, err }).toEqual({
      status: 0,
      out: 'web is there, id id-web, switched off.\n',
      err: 'creating web ...\n',
    });
    expect(manager.calls).toEqual([
      [
        'createVm',
        {
          name: 'web',
          memoryBytes: 96 * 2 ** 20,
          disks: [{ sizeBytes: 2 ** 28 }, { sizeBytes: 2 ** 30 }],
          cpus: 2,
          policy: 'mirror-3',
          boot: 'disk',
          hosts: ['h1', 'h2', 'h3'],
          protected: false,
        },
      ],
    ]);
  });

  it('create wants hosts with commas between them', async () => {
    const { status, err } = await cli(...create, '--hosts', 'h1,,h3');
    expect({ status, calls: manager.calls }).toEqual({ status: 2, calls: [] });
    expect(err).toMatch(/Expected names of hosts with commas/);
  });

  it('create boots the built-in guest unless told otherwise', async () => {
    await cli(...create);
    expect(manager.calls[0]?.[1]).toMatchObject({ boot: 'counter' });
  });

  it('shows progress in place on a terminal, and none with JSON', async () => {
    const terminal = await run([...create, '--socket', socket], { errIsTerminal: true });
    expect(terminal.err).toBe('\rcreating web ...\r\u001b[K');
    expect((await cli('vm', 'start', 'web', '--output', 'json')).err).toBe('');
  });

  it('starts, stops and removes', async () => {
    manager.add('web');
    expect((await cli('vm', 'start', 'web', '--on', 'host-2')).out).toBe(
      'web is running on host-2.\n',
    );
    expect((await cli('vm', 'stop', 'web', '--force')).out).toBe('web is off.\n');
    expect((await cli('--output', 'json', 'vm', 'remove', 'web')).out).toBe(
      '{\n  "removed": "web"\n}\n',
    );
    expect(manager.calls).toEqual([
      ['startVm', 'web', { on: 'host-2' }],
      ['stopVm', 'web', { force: true }],
      ['removeVm', 'web'],
    ]);
  });

  it('list and show, for people', async () => {
    expect((await cli('vm', 'list')).out).toMatch(/^There are no VMs/);
    manager.add('web');
    const list = (await cli('vm', 'list')).out;
    expect(list).toMatch(/^NAME +POWER +HOST +READY +PROTECTION +MEMORY +DISKS +NOTE\n/);
    expect(list).toMatch(/\nweb +off +- +no +unprotected: it is switched off +128 MiB +256 MiB\n$/);
    const reason = 'its power-off is recorded later';
    const protection = { status: 'pending', reason } as const;
    manager.known.set('db', { ...manager.add('db'), protection, note: reason });
    expect((await cli('vm', 'list')).out).toMatch(
      /\ndb .* pending +128 MiB +256 MiB +its power-off is recorded later\n$/,
    );
    const show = (await cli('vm', 'show', 'web')).out;
    expect(show).toMatch(/^Name +web\n/);
    expect(show).toMatch(
      /\ndisk0 +256 MiB +1 failures +host-1 host-2 host-3 +host-1:active host-2:degraded +disk0 lacks/,
    );
  });

  it('list and show, for programs', async () => {
    manager.add('web');
    expect(JSON.parse((await cli('vm', 'list', '--output', 'json')).out)).toMatchObject([
      { name: 'web' },
    ]);
    const show = JSON.parse((await cli('vm', 'show', 'web', '--output=json')).out);
    expect(show).toMatchObject({ name: 'web', objects: [{ name: 'disk0' }] });
  });
});

describe('vm create -f', () => {
  const whole = `# a comment
name: web
memory: 96MiB
disks:
  - size: 256MiB
    policy: mirror
  - size: 1GiB
policy:
  failuresToTolerate: 0
  stripes: 2
priority: high
`;

  it('takes the VM from the file', async () => {
    expect((await cli('vm', 'create', '-f', file('vm.yaml', whole))).status).toBe(0);
    expect(manager.calls[0]?.[1]).toEqual({
      name: 'web',
      memoryBytes: 96 * 2 ** 20,
      disks: [{ sizeBytes: 2 ** 28, policy: 'mirror' }, { sizeBytes: 2 ** 30 }],
      policy: { failuresToTolerate: 0, stripes: 2 },
      priority: 'high',
      boot: 'counter',
    });
  });

  it('with a disk that is there already', async () => {
    const one = whole.replace('size: 1GiB', 'path: /mnt/nfs/a b.img\n    format: raw');
    expect((await cli('vm', 'create', '-f', file('vm.yaml', one))).status).toBe(0);
    expect(manager.calls[0]?.[1]).toMatchObject({
      disks: [{ sizeBytes: 2 ** 28 }, { path: '/mnt/nfs/a b.img', format: 'raw' }],
    });
    for (const wrong of ['path: /a\n    size: 1GiB', 'format: raw']) {
      const text = whole.replace('size: 1GiB', wrong);
      expect((await cli('vm', 'create', '-f', file('vm.yaml', text))).err).toMatch(
        /line 7: `disks\[1\]`: expected either a `size`, for a new disk, or the `path`/,
      );
    }
  });

  it('with the hosts of its objects', async () => {
    const placed = `${whole}hosts: [h1]\nobjectHosts:\n  disk1: [h2]\n`;
    expect((await cli('vm', 'create', '-f', file('vm.yaml', placed))).status).toBe(0);
    expect(manager.calls[0]?.[1]).toMatchObject({ hosts: ['h1'], objectHosts: { disk1: ['h2'] } });
    const wrong = await cli('vm', 'create', '-f', file('vm.yaml', placed.replace('[h2]', 'h2')));
    expect(wrong.err).toMatch(/line 14: `objectHosts.disk1` is "h2": expected a list of hosts/);
  });

  it('under another name', async () => {
    await cli('vm', 'create', 'other', '-f', file('vm.yaml', whole));
    expect(manager.calls[0]?.[1]).toMatchObject({ name: 'other' });
  });

  it.each<[string, string, string, RegExp]>([
    [
      'an unknown key',
      'priority: high',
      'prority: high',
      /line 11: unknown key `prority`: expected one/,
    ],
    ['an unknown key inside', 'size: 1GiB', 'sze: 1GiB', /line 7: unknown key `disks\[1\]\.sze`/],
    ['a negative size', '96MiB', '-96MiB', /line 3: `memory` is "-96MiB": expected a size such as/],
    ['a size out of bounds', '1GiB', '1B', /line 7: `disks\[1\]\.size` is 1: expected/],
    ['a wrong policy', 'stripes: 2', 'stripes: 99', /line 8: `policy` is .*stripes \(1 to 12\)/],
    ['no YAML', 'memory: 96MiB', 'memory: [', /line \d+: no valid YAML/],
    ['a missing key', 'memory: 96MiB\n', '', /line 2: missing key `memory`: expected a size/],
    ['a bad name', 'name: web', 'name: Web', /line 2: `name` is "Web": expected a name/],
  ])('names key and line: %s', async (_what, from, to, message) => {
    const { status, err } = await cli(
      'vm',
      'create',
      '-f',
      file('vm.yaml', whole.replace(from, to)),
    );
    expect(err).toMatch(message);
    expect(err).toMatch(/vm\.yaml, line /);
    expect(status).toBe(2);
    expect(manager.calls).toEqual([]);
  });

  it('refuses what is no map, what is not there, and options beside it', async () => {
    expect((await cli('vm', 'create', '-f', file('vm.yaml', '- 1\n'))).err).toMatch(/expected/);
    expect((await cli('vm', 'create', '-f', file('vm.yaml', ''))).status).toBe(2);
    expect((await cli('vm', 'create', '-f', join(folder, 'none.yaml'))).err).toMatch(
      /can not be read/,
    );
    const both = await cli('vm', 'create', '-f', file('vm.yaml', whole), '--memory', '96MiB');
    expect(both).toMatchObject({ status: 2, err: /--file and --memory exclude/ as never });
  });
});

describe('cluster and hosts', () => {
  it('status and list', async () => {
    const status = (await cli('cluster', 'status')).out;
    expect(status).toMatch(/Master +host-1\n/);
    expect(status).toMatch(/host-2 +hostDown +failed .* no disk\n/);
    expect(status).toMatch(/vm-b +storage +disk0 of vm-b lacks host-3\.\n/);
    expect((await cli('host', 'list')).out).toMatch(
      /^NAME +STATE .*\nhost-1 +master +reachable +1 +2 +2 GiB/,
    );
    expect((await cli('host', 'list')).out).toMatch(
      /^host-1 .* device \/mnt\/nvme1: it is not there any more$/m,
    );
    expect(JSON.parse((await cli('cluster', 'status', '--output', 'json')).out)).toMatchObject({
      master: 'host-1',
    });
  });

  it('show one host with its devices', async () => {
    const { out } = await cli('host', 'show', 'host-1');
    expect(out).toMatch(/^State +master$/m);
    expect(out).toMatch(/^main +large +ok +512 GiB +1 TiB +3 +4\.3 ms$/m);
    expect(out).toMatch(/^\/mnt\/nvme1 +fast +failed +- +- +1 +- +it is not there any more$/m);
    expect((await cli('host', 'show', 'host-9')).err).toMatch(/The cluster has no host host-9/);
  });

  it('token', async () => {
    expect((await cli('host', 'token')).out).toBe('secret\n');
    expect(JSON.parse((await cli('host', 'token', '--output', 'json')).out)).toEqual({
      token: 'secret',
    });
  });

  it('init makes a host that can be run, and does not touch a folder in use', async () => {
    const dir = join(folder, 'h1');
    const args = ['cluster', 'init', '--dir', dir, '--host', 'host-1'];
    const addresses = ['--storage-address', '127.0.0.1:7440', '--ha-address', '127.0.0.1:7441'];
    const made = await run([...args, ...addresses, '--output', 'json']);
    expect(made).toMatchObject({ status: 0, err: '' });
    const { cluster, host, config } = JSON.parse(made.out);
    expect({ cluster, host }).toEqual({ cluster: 'holdfast', host: 'host-1' });
    expect(await readConfig(config)).toMatchObject({ name: 'host-1', cluster: 'holdfast' });
    const again = await run([...args, ...addresses]);
    expect(again).toMatchObject({ status: 1, err: /exists and is not empty/ as never });
  });

  it('join refuses what is no token', async () => {
    const token = file('token', 'nonsense\n');
    const args = ['--name', 'host-2', '--dir', join(folder, 'h2')];
    const addresses = ['--storage-address', '127.0.0.1:7442', '--ha-address', '127.0.0.1:7443'];
    const { status, out } = await run([
      'host',
      'join',
      '--token-file',
      token,
      ...args,
      ...addresses,
    ]);
    expect({ status, out }).toEqual({ status: 1, out: '' });
  });
});

describe('the context', () => {
  it('is a file, by option or environment, with paths from its folder', async () => {
    const context = file('context', 'sockets: [dead.sock, api.sock]\n');
    expect((await run(['host', 'list', '--context', context])).status).toBe(0);
    const env = { HOLDFAST_CONTEXT: context };
    expect((await run(['host', 'list'], { env })).status).toBe(0);
  });

  it('is the usual file otherwise', async () => {
    execFileSync('mkdir', ['-p', join(folder, '.config/holdfast')]);
    file('.config/holdfast/context', JSON.stringify({ sockets: [socket] }));
    expect((await run(['host', 'list'])).status).toBe(0);
  });

  it('is checked', async () => {
    const context = file('context', 'socket: api.sock\n');
    const { status, err } = await run(['host', 'list', '--context', context]);
    expect(status).toBe(2);
    expect(err).toMatch(/unknown key `socket`: expected one of sockets, demo/);
  });
});

describe('events', () => {
  it('are followed until nobody reads any more', async () => {
    manager.happen('one');
    const closed = new AbortController();
    let out = '';
    const running = run(['events', '--output', 'json', '--socket', socket], {
      closed: closed.signal,
      out: (text) => {
        out += text;
        if (out.includes('two')) closed.abort();
      },
    });
    await expect.poll(() => out).toMatch(/one/);
    manager.happen('two');
    expect((await running).status).toBe(0);
    expect(
      out
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line).text),
    ).toEqual(['one', 'two']);
  });

  it('fail where no host answers', async () => {
    expect((await run(['events', '--socket', join(folder, 'none.sock')])).status).toBe(1);
  });
});
