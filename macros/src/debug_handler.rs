//! `#[debug_handler]`: one check per part of a handler, so that an error is at the wrong part.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::parse::ParseStream;
use syn::spanned::Spanned;
use syn::{Error, FnArg, ItemFn, Path, Result, ReturnType, Signature, Type};

use crate::attribute::{self, Key};

/// What `Handler` is implemented for, in `sagabus-core`.
const EXTRACTORS_MAX: usize = 8;

/// Writes the function as it is, and the checks after it.
pub(crate) fn expand(settings: TokenStream, item: TokenStream) -> TokenStream {
    let checks = checks(settings, item.clone()).unwrap_or_else(Error::into_compile_error);
    quote! { #item #checks }
}

fn checks(settings: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let root = read_root(settings)?;
    let signature = syn::parse2::<ItemFn>(item)
        .map_err(|error| Error::new(error.span(), "`#[debug_handler]` checks an `async fn`"))?
        .sig;
    check_shape(&signature)?;
    let arguments = arguments(&signature)?;
    let parts = arguments.iter().enumerate().map(|(at, argument)| {
        let part = match at {
            0 => quote_spanned!(argument.span()=> FirstArgument),
            _ => quote_spanned!(argument.span()=> FurtherArgument),
        };
        quote_spanned!(argument.span()=> let _ = <#argument as #root::#part>::CHECKED;)
    });
    let output = output(&signature, &root);
    let run = run(&signature, &arguments, &root);
    Ok(quote! {
        const _: () = {
            #[allow(warnings, clippy::all, clippy::pedantic)]
            fn check_parts() {
                #(#parts)*
                #output
            }
            #run
        };
    })
}

fn read_root(settings: TokenStream) -> Result<TokenStream> {
    let mut facade: Option<Path> = None;
    let mut setting = |key, input: ParseStream<'_>| match key {
        Key::Word(word) if word == "crate" => attribute::keep(
            &mut facade,
            attribute::value(input)?,
            "`crate`",
            word.span(),
        ),
        Key::Word(word) => Err(attribute::unknown(&word, "`crate = path`")),
        Key::Text(text) => Err(Error::new(text.span(), "a handler has no name of its own")),
    };
    let parser = |input: ParseStream<'_>| attribute::read(input, &mut setting);
    syn::parse::Parser::parse2(parser, settings)?;
    Ok(attribute::root(facade.as_ref()))
}

fn check_shape(signature: &Signature) -> Result<()> {
    if signature.asyncness.is_none() {
        let fact = "a handler is asynchronous: write `async fn`";
        return Err(Error::new(signature.fn_token.span(), fact));
    }
    if !signature.generics.params.is_empty() {
        let fact = "`#[debug_handler]` cannot check a generic function; give it concrete types";
        return Err(Error::new_spanned(&signature.generics, fact));
    }
    let further = signature.inputs.iter().skip(1 + EXTRACTORS_MAX);
    if let Some(excess) = further.last() {
        let fact = "a handler takes its message and at most 8 extractors; put values that belong \
                    together into one `State<T>`";
        return Err(Error::new_spanned(excess, fact));
    }
    if signature.inputs.is_empty() {
        let ident = &signature.ident;
        let fact = format!("a handler takes its message first: `async fn {ident}(message: ..)`");
        return Err(Error::new(signature.paren_token.span.join(), fact));
    }
    Ok(())
}

fn arguments(signature: &Signature) -> Result<Vec<&Type>> {
    signature.inputs.iter().map(argument).collect()
}

fn argument(argument: &FnArg) -> Result<&Type> {
    match argument {
        FnArg::Receiver(receiver) => {
            let fact = "a handler is a free function; what it needs comes as `State<T>`";
            Err(Error::new_spanned(receiver, fact))
        }
        FnArg::Typed(typed) if matches!(*typed.ty, Type::ImplTrait(_)) => {
            let fact = "an argument of a handler has a concrete type";
            Err(Error::new_spanned(&typed.ty, fact))
        }
        FnArg::Typed(typed) => Ok(&typed.ty),
    }
}

/// Checks the declared return type. One that is only described (`impl Trait`) is left to the
/// compiler, which has no better place for an error either.
fn output(signature: &Signature, root: &TokenStream) -> Option<TokenStream> {
    match &signature.output {
        ReturnType::Default => None,
        ReturnType::Type(_, output) if matches!(**output, Type::ImplTrait(_)) => None,
        ReturnType::Type(_, output) => {
            Some(quote_spanned!(output.span()=> let _ = <#output as #root::Returned>::CHECKED;))
        }
    }
}

/// Checks that the future may move between threads.
fn run(signature: &Signature, arguments: &[&Type], root: &TokenStream) -> TokenStream {
    let ident = &signature.ident;
    let names: Vec<_> = (0..arguments.len())
        .map(|at| format_ident!("argument_{at}"))
        .collect();
    let call = quote_spanned!(ident.span()=> #root::future_is_send(#ident(#(#names),*)));
    quote! {
        #[allow(warnings, clippy::all, clippy::pedantic)]
        fn check_run(#(#names: #arguments),*) {
            #call
        }
    }
}
