// A Ceph cluster of Debian's packages on one machine: a monitor, a manager and three OSDs (BlueStore
// on sparse files), each on a loopback address of its own, unencrypted and without authentication,
// which is in Ceph's favour. One RBD image with two copies, client caches off; fio drives it through
// librbd, which is part of the path and counted with it.

import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { start, waitFor } from './processes.mjs';

const run = promisify(execFile);
const osds = [0, 1, 2];

export async function startCeph({ folder, network, sizeBytes }) {
  const conf = path.join(folder, 'ceph.conf');
  const fsid = randomUUID();
  const monitor = `[v2:${network}.1:3300]`;
  const sections = osds.map(
    (id) =>
      `[osd.${id}]\npublic_addr = ${network}.${id + 11}\ncluster_addr = ${network}.${id + 11}`,
  );
  await mkdir(folder, { recursive: true });
  await writeFile(
    conf,
    `[global]
fsid = ${fsid}
mon_host = ${monitor}
ms_bind_msgr1 = false
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
run_dir = ${folder}
admin_socket = ${folder}/$name.asok
pid_file = ${folder}/$name.pid
log_file = ${folder}/$name.log
log_to_stderr = false
mon_data = ${folder}/mon
mgr_data = ${folder}/mgr
osd_data = ${folder}/osd-$id
osd_pool_default_size = 2
osd_pool_default_min_size = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
osd_memory_target = 1073741824
osd_class_load_list = *
bluestore_block_size = 8589934592
mon_allow_pool_delete = true
mon_warn_on_pool_no_redundancy = false
mgr_initial_modules =
rbd_cache = false
[mgr.x]
public_addr = ${network}.1
${sections.join('\n')}
`,
  );
  const ceph = async (...args) =>
    (await run('ceph', ['-c', conf, '--connect-timeout', '20', ...args])).stdout;
  const monmap = path.join(folder, 'monmap');
  await run('monmaptool', [
    '--create',
    '--clobber',
    '--fsid',
    fsid,
    '--addv',
    'a',
    monitor,
    monmap,
  ]);
  for (const name of ['mon', 'mgr', ...osds.map((id) => `osd-${id}`)]) {
    await mkdir(path.join(folder, name), { recursive: true });
  }
  await run('ceph-mon', ['-c', conf, '--mkfs', '-i', 'a', '--monmap', monmap]);
  const daemon = (file, id) =>
    start(file, ['-c', conf, '-f', '-i', id], { log: path.join(folder, `${file}-${id}.out`) });
  const mon = daemon('ceph-mon', 'a');
  await waitFor(
    'the Ceph monitor answers',
    () =>
      ceph('-s').then(
        () => true,
        () => false,
      ),
    mon,
  );
  const daemons = [mon, daemon('ceph-mgr', 'x')];
  for (const id of osds) {
    const uuid = randomUUID();
    await ceph('osd', 'new', uuid);
    await run('ceph-osd', ['-c', conf, '-i', String(id), '--mkfs', '--osd-uuid', uuid]);
    daemons.push(daemon('ceph-osd', String(id)));
  }
  await waitFor(
    'the OSDs are up',
    async () => JSON.parse(await ceph('osd', 'stat', '-f', 'json')).num_up_osds === 3,
    daemons[2],
    60_000,
  );
  await ceph('osd', 'pool', 'create', 'rbd', '32', '32');
  await waitFor(
    'the placement groups are clean',
    async () => {
      const { num_pgs: all, num_pg_by_state: states } = JSON.parse(
        await ceph('pg', 'stat', '-f', 'json'),
      ).pg_summary;
      return all >= 32 && states.length === 1 && states[0].name === 'active+clean';
    },
    null,
    60_000,
  );
  await run('rbd', [
    '-c',
    conf,
    'create',
    '--size',
    `${sizeBytes / 2 ** 20}M`,
    '--image-feature',
    'layering',
    'rbd/bench',
  ]);

  /** One fio run; its own processor time is librbd's. */
  async function load({ write, blockBytes, depth, ms, warmUpMs = 0 }) {
    const time =
      ms === null ? [] : ['--time_based', `--runtime=${ms}ms`, `--ramp_time=${warmUpMs}ms`];
    const kind = ms === null ? 'write' : write ? 'randwrite' : 'randread';
    const args = [
      '--name=bench',
      '--ioengine=rbd',
      '--clientname=admin',
      '--pool=rbd',
      '--rbdname=bench',
      `--rw=${kind}`,
      `--bs=${blockBytes}`,
      `--iodepth=${depth}`,
      '--output-format=json',
      ...time,
    ];
    const { stdout } = await run('fio', args, {
      env: { ...process.env, CEPH_CONF: conf },
      cwd: folder,
    });
    const job = JSON.parse(stdout.slice(stdout.indexOf('{'))).jobs[0];
    const side = write || ms === null ? job.write : job.read;
    const percentile = (of) => (side.clat_ns.percentile?.[of] ?? NaN) / 1e6;
    const cpuShare = (job.usr_cpu + job.sys_cpu) / 100;
    return {
      count: side.total_ios,
      perSecond: side.iops,
      p50: percentile('50.000000'),
      p99: percentile('99.000000'),
      clientCpuUs: (cpuShare * 1e6) / side.iops,
    };
  }
  return { daemons, load };
}
