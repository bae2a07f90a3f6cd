import { z } from 'zod'
import { type AddressSet, parseAddressSet } from './address-set.ts'
import { formatHostPort, parseAddressList, parseHostPort } from './listen-address.ts'

/** How the text of an environment variable becomes a value. */
export interface SettingType<T> {
  /** What is expected, for the sentence after "expected". */
  readonly expected: string
  /** Refuses, or gives the value. */
  readonly schema: z.ZodType<T, string>
  /** The value as an operator would type it. */
  readonly format: (value: T) => string
}

interface Range {
  readonly min: number
  readonly max: number
}

/** Whole milliseconds, bounds included. */
export function milliseconds(range: Range): SettingType<number> {
  return whole('whole milliseconds', range)
}

/** A whole number, bounds included. */
export function wholeNumber(range: Range): SettingType<number> {
  return whole('a whole number', range)
}

/** A size in whole bytes, bounds included. */
export function bytes(range: Range): SettingType<number> {
  return whole('whole bytes', range)
}

/** Text of 1 to `maxLength` (default 1000) characters; `pattern` comes with what to tell who misses it. */
export function text(options: { maxLength?: number; pattern?: { matches: RegExp; expected: string } } = {}): SettingType<string> {
  const { maxLength = 1000, pattern } = options
  const length = `1 to ${maxLength} characters`
  return {
    expected: pattern === undefined ? length : pattern.expected,
    schema: z
      .string()
      .min(1)
      .max(maxLength)
      .regex(pattern?.matches ?? /^/),
    format: (value) => value,
  }
}

/** One of these words. */
export function oneOf<const T extends string>(words: readonly [T, ...T[]]): SettingType<T> {
  return { expected: `one of ${words.join(', ')}`, schema: picked(words), format: (value) => value }
}

/** One or more of these words, with commas between them. */
export function list<const T extends string>(words: readonly [T, ...T[]]): SettingType<readonly T[]> {
  const word = picked(words)
  return {
    expected: `a comma list of ${words.join(', ')}`,
    schema: z.string().transform((typed, context) => {
      const parsed = z.array(word).safeParse(typed.split(',').map((part) => part.trim()))
      if (parsed.success) return parsed.data
      context.addIssue({ code: 'custom', message: 'none of the words' })
      return z.NEVER
    }),
    format: (value) => value.join(','),
  }
}

/** Yes or no: `true`, `false`, `1`, `0`. */
export function flag(): SettingType<boolean> {
  return {
    expected: 'true or false',
    schema: z.enum(['true', 'false', '1', '0']).transform((word) => word === 'true' || word === '1'),
    format: String,
  }
}

/** Where to listen, or one place to dial: `host:port`, IPv6 in brackets. Port 0 lets the system choose. */
export function address(): SettingType<string> {
  return {
    expected: 'host:port',
    schema: z.string().transform((typed, context) => {
      const parsed = parseHostPort(typed)
      if (parsed !== undefined) return formatHostPort(parsed)
      context.addIssue({ code: 'custom', message: 'no host:port' })
      return z.NEVER
    }),
    format: (value) => value,
  }
}

/** Where to dial: a comma list of `host:port`, or a DNS name whose addresses are all used. What `connectGrpc` takes. */
export function addressList(): SettingType<string> {
  return {
    expected: 'host:port[,host:port…] or dns:///name:port',
    schema: z.string().refine((typed) => parseAddressList(typed) !== undefined),
    format: (value) => value,
  }
}

/** IP addresses and networks, or `none`. */
export function addressSet(): SettingType<AddressSet> {
  return {
    expected: 'none, or a comma list of IP addresses and networks, as 10.0.0.0/8',
    schema: z.string().transform((typed, context) => {
      const parsed = parseAddressSet(typed)
      if (parsed !== undefined) return parsed
      context.addIssue({ code: 'custom', message: 'no such list' })
      return z.NEVER
    }),
    format: (value) => value.text,
  }
}

/** A file or folder. Not checked to exist: who opens it can say more. */
export function path(): SettingType<string> {
  return { expected: 'a path', schema: z.string().min(1).max(4096), format: (value) => value }
}

function whole(what: string, { min, max }: Range): SettingType<number> {
  return {
    expected: `${what} from ${min} to ${max}`,
    schema: z
      .string()
      .regex(/^-?\d{1,16}$/)
      .transform(Number)
      .refine((value) => value >= min && value <= max),
    format: String,
  }
}

function picked<T extends string>(words: readonly T[]): z.ZodType<T, string> {
  return z.string().transform((typed, context) => {
    const word = words.find((candidate) => candidate === typed)
    if (word !== undefined) return word
    context.addIssue({ code: 'custom', message: 'none of the words' })
    return z.NEVER
  })
}
