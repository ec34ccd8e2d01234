// A small file of the host's own that is replaced as a whole: after a crash at any moment there is the
// old content or the new one.

export interface SmallFile {
  /** Null where there is none yet. */
  read(): Promise<string | null>;
  /** Resolves when it is durable; rejects with `disk-full` or `disk-error`, and the old stands then. */
  write(content: string): Promise<void>;
}
