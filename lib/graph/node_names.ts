/**
 * Nodes that have a name, by which others can refer to them (`node-name`).
 *
 * @module
 */
import { ImageError } from "../block/error.ts";
import type { NodeAccess, Permission } from "../block/mode.ts";
import type { BlockNode } from "../block/node.ts";
import { standIn } from "./stand_in.ts";

const NAME = /^[A-Za-z][A-Za-z0-9._-]*$/;
const MAX_NAME = 31;

/** Who uses a node, and how. */
interface Entry {
  readonly node: BlockNode;
  /** What each of its users needs. */
  readonly users: Map<symbol, NodeAccess>;
}

const scopes = new WeakMap<object, NodeNames>();

/** The named nodes of a scope: always the same for the same object. */
export function nodesIn(scope: object): NodeNames {
  let nodes = scopes.get(scope);
  if (nodes === undefined) scopes.set(scope, nodes = new NodeNames());
  return nodes;
}

/** The named nodes of a program. A node lives as long as anybody uses it. */
export class NodeNames {
  readonly #entries = new Map<string, Entry>();

  /**
   * Makes sure that a node can have this name.
   *
   * @throws {ImageError} `Invalid node-name: '…'`, `Node name too long`, `Duplicate nodes with node-name='…'`
   */
  require(name: string): void {
    const refuse = (message: string) =>
      new ImageError(message, { errno: "EINVAL", field: "node-name" });
    if (!NAME.test(name)) throw refuse(`Invalid node-name: '${name}'`);
    if (this.#entries.has(name)) throw refuse(`Duplicate nodes with node-name='${name}'`);
    if (name.length > MAX_NAME) throw refuse("Node name too long");
  }

  /** Gives a name to a node and answers with what its opener is to use in its place. */
  add(name: string, node: BlockNode): BlockNode {
    this.require(name);
    const entry: Entry = { node, users: new Map() };
    this.#entries.set(name, entry);
    return this.#use(name, entry);
  }

  /**
   * The node of this name, once more open.
   *
   * @throws {ImageError} `Cannot find device='…' nor node-name='…'`
   */
  find(name: string): BlockNode {
    const entry = this.#entries.get(name);
    if (entry !== undefined) return this.#use(name, entry);
    throw new ImageError(`Cannot find device='${name}' nor node-name='${name}'`, {
      errno: "ENODEV",
    });
  }

  #use(name: string, entry: Entry): BlockNode {
    const { node, users } = entry;
    const user = Symbol(name);
    users.set(user, { uses: [], unshares: [] });
    return standIn(node, {
      nodeName: name,
      ...(node.lock === undefined ? {} : {
        lock: async (access: NodeAccess) => {
          requireNoConflict(name, access, users, user);
          const before = users.get(user)!;
          users.set(user, access);
          try {
            await node.lock!(union(users.values()));
          } catch (error) {
            users.set(user, before);
            throw error;
          }
        },
      }),
      [Symbol.asyncDispose]: async () => {
        if (!users.delete(user) || users.size > 0) return;
        if (this.#entries.get(name) === entry) this.#entries.delete(name);
        await node[Symbol.asyncDispose]();
      },
    });
  }
}

function requireNoConflict(
  name: string,
  access: NodeAccess,
  users: ReadonlyMap<symbol, NodeAccess>,
  user: symbol,
): void {
  for (const [other, theirs] of users) {
    if (other === user) continue;
    const conflict = access.uses.find((permission) => theirs.unshares.includes(permission)) ??
      access.unshares.find((permission) => theirs.uses.includes(permission));
    if (conflict === undefined) continue;
    throw new ImageError(
      `Permission conflict on node '${name}': permissions '${conflict}' are both required by one ` +
        "of its users and unshared by another one",
      { errno: "EPERM" },
    );
  }
}

function union(all: Iterable<NodeAccess>): NodeAccess {
  const uses = new Set<Permission>();
  const unshares = new Set<Permission>();
  for (const access of all) {
    for (const permission of access.uses) uses.add(permission);
    for (const permission of access.unshares) unshares.add(permission);
  }
  return { uses: [...uses], unshares: [...unshares] };
}
