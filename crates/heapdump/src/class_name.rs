//! Names of classes that come from code.
//!
//! A class has the name of the constant that it was assigned to. Since Ruby 3.3 an anonymous class may be called anything
//! (`Module#set_temporary_name`): such a name is a value of the application, and what is defined in the class has it in its own.

/// Returns true for the name of a constant, also of one in an anonymous class or module (`#<Class:0x00007f5c1c0b1c38>::Row`).
pub fn is_from_code(name: &[u8]) -> bool {
    let Ok(name) = core::str::from_utf8(name) else { return false };
    // error.c and complex.c: Ruby's own exceptions to the rule. Only C code can make more.
    matches!(name, "fatal" | "Complex::compatible")
        || name.strip_prefix("#<").map_or_else(|| is_path(name), is_in_anonymous)
}

// variable.c, `make_temporary_path`.
fn is_in_anonymous(name: &str) -> bool {
    let Some((anonymous, path)) = name.split_once(">::") else { return false };
    let address = anonymous.rsplit_once(":0x");
    address.is_some_and(|(class, digits)| is_path(class) && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        && is_path(path)
}

fn is_path(name: &str) -> bool {
    name.split("::").all(is_constant)
}

// symbol.c, `rb_sym_constant_char_p` and `is_identchar`.
fn is_constant(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(char::is_uppercase)
        && characters.all(|character| character.is_ascii_alphanumeric() || character == '_' || !character.is_ascii())
}

#[cfg(test)]
mod tests {
    use super::is_from_code;

    #[test]
    fn a_constant_is_from_code_and_other_text_is_not() {
        for name in [
            "Object",
            "Shop::Session",
            "Été",
            "A_1::B",
            "Ünïté",
            "#<Class:0x00007f5c1c0b1c38>::Row::Cell",
            "#<A::B:0x1>::C",
            "fatal",
        ] {
            assert!(is_from_code(name.as_bytes()), "{name}");
        }
        for name in [
            "",
            "token of a user",
            "Token of a user",
            "s3cr3t",
            "s3cr3t::Inner",
            "A::s3cr3t",
            "::A",
            "A::",
            "A:",
            "été",
        ] {
            assert!(!is_from_code(name.as_bytes()), "{name}");
        }
        for name in [
            "#<Class:0x1>",
            "#<s3cr3t:0x1>::A",
            "#<Class:s3cr3t>::A",
            "#<Class:0x1>::s3cr3t",
            "#<>::A",
            "A\0",
            "A\u{1b}[2J",
        ] {
            assert!(!is_from_code(name.as_bytes()), "{name}");
        }
        assert!(!is_from_code(b"Caf\xe9"));
    }
}
