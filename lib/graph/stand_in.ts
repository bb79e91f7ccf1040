import type { BlockNode } from "../block/node.ts";
import { describeAs } from "./shown_names.ts";

/**
 * A node that is another one in all but some members. What capabilities nodes have is for their drivers
 * to say, so all that there are go through.
 */
export function standIn(
  node: BlockNode,
  members: { readonly [K in keyof BlockNode]?: BlockNode[K] | undefined },
): BlockNode {
  const proxy = new Proxy(node, {
    get(target, key) {
      if (Object.hasOwn(members, key)) return Reflect.get(members, key);
      const value = Reflect.get(target, key, target);
      // Nodes have private members: their methods work on themselves only.
      return typeof value === "function" ? value.bind(target) : value;
    },
    has: (target, key) =>
      Object.hasOwn(members, key) ? Reflect.get(members, key) !== undefined : key in target,
  });
  describeAs(proxy, node);
  return proxy;
}
