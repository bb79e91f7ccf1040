/**
 * Takes one step after the other, waiting for each, whatever fails on the way; the first failure
 * is thrown at the end. For nodes that close what is below them.
 */
export async function closeAll(
  steps: Iterable<() => unknown>,
): Promise<void> {
  let failure: { readonly error: unknown } | undefined;
  for (const step of steps) {
    try {
      await step();
    } catch (error) {
      failure ??= { error };
    }
  }
  if (failure !== undefined) throw failure.error;
}
