// The devices that a host pools, as policies name them. Two classes and no more: what an operator knows
// of a device is whether it was bought for speed or for room.

export const deviceClasses = ['fast', 'large'] as const;
export type DeviceClass = (typeof deviceClasses)[number];

/** Of a device of which nobody has said anything; and what a policy without a class takes first, so that
 * what is fast is left for those who ask for it. */
export const usualClass: DeviceClass = 'large';

/** What the device is called that a host keeps its registers on. */
export const mainDeviceName = 'main';

export function isDeviceClass(value: unknown): value is DeviceClass {
  return deviceClasses.some((one) => one === value);
}
